"""What all parameter files share: strict sections, shared types, loading with one-line errors.

The only module that reads YAML. Unknown keys, wrong types and impossible values are refused here, so that the code
inside can rely on them.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

Norm = Literal["L2", "Linf"]
Realization = Literal["oi", "cm", "nn", "sbg"]
Computable = Literal["oi", "cm"]  # of the realizations: a target per class is all that their gradients need
Baseline = Literal["vanilla", "at-l2", "at-linf", "trades-linf", "gradnorm", "noise"]
RobustMethod = Literal["at-l2", "at-linf", "trades-linf"]
Precision = Literal["float32", "bf16"]
GradientOf = Literal["log_softmax", "logit"]
Activation = Literal["relu", "silu"]  # the end of an architecture's name, where it is not the usual one

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Steps = Annotated[list[Count], Field(min_length=1)]


class ConfigError(ValueError):
    """A parameter that the project cannot run with; the message is one line for the user."""


class Section(BaseModel):
    """A block of parameters: unknown keys and wrong types are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True, allow_inf_nan=False)


def without_activation(arch: str) -> str:
    """The architecture that `arch` is but for its activation: rn18 for rn18-silu."""
    base, _, last = arch.rpartition("-")
    return base if last in get_args(Activation) else arch


def nearest(word: str, known: list[str]) -> str:
    """', did you mean …?' or the list of valid names, for an error message."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f", did you mean '{close[0]}'?" if close else f", expected one of {', '.join(known)}"


Model = TypeVar("Model", bound=Section)


def load(model: type[Model], path: Path) -> Model:
    return check(model, read_yaml(path), str(path))


def read_yaml(path: Path) -> Any:
    """The content of a file, by the rules that DVC writes it with (YAML 1.2: 1e-05 is a number, `on` is text)."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: run from the repository's root")
    try:
        return YAML(typ="safe", pure=True).load(path)
    except DuplicateKeyError as error:
        raise ConfigError(f"{path} is not valid YAML: {error.problem}, line {error.problem_mark.line + 1}") from None
    except (YAMLError, ValueError) as error:  # ValueError: a date that there is not
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def check(model: type[Model], content: Any, source: str) -> Model:
    """`content` as a section; the error of a wrong one is one line that begins with `source`."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_problem(error, model)}") from None


def _first_problem(error: ValidationError, model: type[Section]) -> str:
    # a misspelt key is also a missing one: say how it was spelt
    problem = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        *parents, unknown = problem["loc"]
        return f"unknown key '{key}'{nearest(str(unknown), _keys(model, parents))}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"{key}: missing"
    if problem["type"] == "model_type":
        return f"{key + ': ' if key else ''}expected keys with values (got {problem['input']!r})"
    return f"{key}: {message} (got {problem['input']!r})" if key and problem["type"] != "value_error" else message


def _keys(model: type[Section], parents: list[Any]) -> list[str]:
    """The valid keys of the section that `parents` leads to."""
    for parent in parents:
        field = next(f for name, f in model.model_fields.items() if parent in (name, f.alias))
        # a section that may be missing is a union of it and None
        model = next(iter(get_args(field.annotation)), field.annotation)  # type: ignore[assignment]
    return [field.alias or name for name, field in model.model_fields.items()]
