// Charts, the switches of their methods, tables that sort, pictures that grow.

const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const axis = { domainColor: "currentColor", tickColor: "currentColor", labelColor: "currentColor", titleColor: "currentColor", gridColor: "var(--line)", titleFontWeight: "normal", labelFontSize: 12, titleFontSize: 12, labelLimit: 150, tickCount: 6 };
const config = { background: "transparent", font: "system-ui, sans-serif", view: { stroke: null }, axis };
const options = { renderer: "svg", actions: false, config, tooltip: { theme: dark ? "dark" : "light" } };
const specs = JSON.parse(document.getElementById("charts").textContent);
const drawn = Promise.all(Object.entries(specs).map(([id, spec]) => window.vegaEmbed(`#${CSS.escape(id)}`, spec, options)));

document.getElementById("methods")?.addEventListener("change", async (event) => {
  const boxes = [...event.currentTarget.querySelectorAll("input")];
  const hidden = boxes.filter((box) => !box.checked).map((box) => box.value);
  for (const { view } of await drawn) view.signal("hidden", hidden).runAsync();
});

// "2.5 min" is more than "30 s", and a cell without a number is last.
const units = { min: 60, h: 3600 };
function number(text) {
  const value = parseFloat(text.replace("−", "-"));
  return Number.isNaN(value) ? -Infinity : value * (units[text.split(" ")[1]] ?? 1);
}

function sort(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const numbers = [...table.tBodies[0].rows].some((row) => number(row.cells[column].textContent) > -Infinity);
  const falls = heads[column].ariaSort ? heads[column].ariaSort === "ascending" : numbers;
  const order = (a, b) => (numbers ? number(a) - number(b) : a.localeCompare(b)) * (falls ? -1 : 1);
  const rows = [...table.tBodies[0].rows].sort((a, b) => order(a.cells[column].textContent, b.cells[column].textContent));
  table.tBodies[0].append(...rows);
  for (const head of heads) head.ariaSort = null;
  heads[column].ariaSort = falls ? "descending" : "ascending";
}
for (const table of document.querySelectorAll("table.sortable"))
  [...table.tHead.rows[0].cells].forEach((head, column) => head.firstElementChild.addEventListener("click", () => sort(table, column)));

const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll("button.enlarge"))
  button.addEventListener("click", () => {
    dialog.querySelector(".large").replaceChildren(button.querySelector("img").cloneNode());
    dialog.showModal();
  });
dialog.addEventListener("click", () => dialog.close());

await drawn;
document.documentElement.dataset.drawn = "yes"; // for tests
