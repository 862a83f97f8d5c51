"""Networks of others, evaluated beside ours and never trained: `external` of conf/<dataset>.yaml."""

import re
from pathlib import Path, PurePosixPath

from pydantic import Field, model_validator

from pag.foundation.config.conf import Conf
from pag.foundation.config.runs import NAME, methods
from pag.foundation.config.section import ConfigError, Section, check, nearest

EXTERNAL = "external"  # in the place of an architecture, in paths and in tables
FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class External(Section):
    """One network; all that it is made of lies in the folder external/<name>, which its evaluation depends on."""

    function: str = Field(alias="import")  # package.module:function, without arguments; the module is in the folder
    weights: str | None = None  # a state dict in the folder, .safetensors or of torch.save; null: function loads them

    @model_validator(mode="after")
    def _is_in_the_folder(self) -> "External":
        if not FUNCTION.fullmatch(self.function):
            raise ValueError(f"import: expected package.module:function (got '{self.function}')")
        if self.module.endswith(".py"):
            raise ValueError(f"import: a module is named without .py (got '{self.function}')")
        path = PurePosixPath(self.weights or "weights")
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"weights: expected a path in the network's own folder (got '{self.weights}')")
        return self

    @property
    def module(self) -> str:
        return self.function.split(":")[0]

    def require_files(self, folder: Path) -> None:
        """Raises ConfigError, one line, where `folder` lacks the module or the weights."""
        if not folder.is_dir():
            raise ConfigError(
                f"{folder} is no folder here: expected the code and weights of the external network in it (a queued "
                "experiment has what git and DVC know: `git add` its code, `dvc add` its weights)"
            )
        base = folder.joinpath(*self.module.split("."))
        if not any(path.is_file() for path in (base.with_suffix(".py"), base / "__init__.py")):
            raise ConfigError(f"{folder} has no module {self.module}: expected {base.with_suffix('.py')}")
        if self.weights is not None and not (folder / self.weights).is_file():
            raise ConfigError(f"{folder / self.weights} is missing: `weights` of the external network names it")


def external_of(conf: Conf, dataset: str, name: str) -> External:
    """One external network of a conf; the others are not looked at.

    Raises ConfigError, one line that names the network and the key, for an unknown or impossible one.
    """
    if name not in conf.external:
        known = nearest(name, list(conf.external)) if conf.external else ", there is none"
        raise ConfigError(f"unknown external network '{name}': not under `external` of conf/{dataset}.yaml{known}")
    source = f"conf/{dataset}.yaml: external.{name}"
    if not NAME.fullmatch(name):
        raise ConfigError(f"{source}: a name has lower-case letters, digits and single hyphens")
    if name in methods() or name in conf.variants:
        raise ConfigError(f"{source}: '{name}' is the name of a run of ours, a table would have two of them")
    return check(External, conf.external[name], source)
