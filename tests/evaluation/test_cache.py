"""What is taken up from a scratch folder of attacks."""

import shutil
from pathlib import Path

import pytest
import torch
from linear_truth import linear_classifier

from pag.evaluation import cache
from pag.evaluation.cache import Cache
from pag.evaluation.wrapped import Function

ROOMS = Path(cache.__file__).parents[1]


@pytest.mark.parametrize("changed", ["evaluation/standard.py", "threat/threat_model.py", "foundation/seeding.py"])
def test_no_outcome_of_other_code_is_taken_up(changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("evaluation", "threat", "foundation"):
        shutil.copytree(ROOMS / room, tmp_path / room)
    monkeypatch.setattr(cache, "_ROOMS", tmp_path)
    images = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))

    def outcome(value: int) -> int:
        kept = Cache(tmp_path / "kept", linear_classifier(4, 36), "pyautoattack")
        return kept.outcome({"images": images}, images, lambda: value)

    assert [outcome(1), outcome(2)] == [1, 1]
    with (tmp_path / changed).open("a") as file:
        file.write("# other\n")
    assert outcome(3) == 3


@pytest.mark.parametrize("model", ["module", "function"])
def test_other_weights_are_attacked_anew(model: str, tmp_path: Path) -> None:
    """Those of the modules that a function calls too; and a buffer that NumPy has no type for."""
    network = linear_classifier(4, 36).eval()
    network.register_buffer("scale", torch.ones(1, dtype=torch.bfloat16))
    images = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))

    def outcome(value: int) -> int:
        given = network if model == "module" else Function(lambda x: 2 * network(x))
        return Cache(tmp_path, given, "pyautoattack").outcome({"images": images}, images, lambda: value)

    assert [outcome(1), outcome(2)] == [1, 1]
    with torch.no_grad():
        next(network.parameters()).mul_(1 + 1e-6)
    assert outcome(3) == 3
