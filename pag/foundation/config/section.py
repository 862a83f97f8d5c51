"""What all parameter files share: strict sections, shared types, loading with one-line errors.

The only module that reads YAML. Unknown keys, wrong types and impossible values are refused here, so that the code
inside can rely on them.
"""

import difflib
import math
import re
import reprlib
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from pag.foundation.printable import printable

Norm = Literal["L2", "Linf"]
Realization = Literal["oi", "cm", "nn", "sbg"]
Computable = Literal["oi", "cm"]  # of the realizations: a target per class is all that their gradients need
Baseline = Literal["vanilla", "at-l2", "at-linf", "trades-linf", "gradnorm", "noise"]
RobustMethod = Literal["at-l2", "at-linf", "trades-linf"]
Precision = Literal["float32", "bf16"]
GradientOf = Literal["log_softmax", "logit"]
Activation = Literal["relu", "silu"]  # the end of an architecture's name, where it is not the usual one


@dataclass(frozen=True)
class Range:
    """The numbers that a field may have, `low` and `high` among them unless they are excluded."""

    low: float
    high: float
    why: str  # not beyond, for the message
    excluded: tuple[float, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, value: float) -> float:
        if value not in self:
            raise PydanticCustomError("range", "{expected}", {"expected": f"expected {self}"})
        return value

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and value not in self.excluded

    def __str__(self) -> str:
        low = f"{'above' if self.low in self.excluded else 'at least'} {_number(self.low)}"
        return f"{low} and {'below' if self.high in self.excluded else 'at most'} {_number(self.high)}: {self.why}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


# Every number has an upper bound too: beyond it a run would end, hours later, where a machine gives up.
Seed = Annotated[int, Range(0, 2**32 - 1, "a seed has 32 bits")]
Count = Annotated[int, Range(1, 10_000_000, "no data set here has more images")]
Candidates = Annotated[int, Range(2, 10_000_000, "no image is its own neighbour, no data set here has more images")]
Classes = Annotated[int, Range(1, 100_000, "no data set here has more classes")]
Side = Annotated[int, Range(1, 4096, "no larger image fits a training")]
Padding = Annotated[int, Range(0, 4096, "no larger image fits a training")]
BatchSize = Annotated[int, Range(1, 65_536, "no machine holds more images at once")]
Width = Annotated[int, Range(1, 2048, "no machine holds a larger network")]
Depth = Annotated[int, Range(1, 64, "no machine holds a larger network")]
Epochs = Annotated[int, Range(1, 100_000, "more would not end")]
TrainingSteps = Annotated[int, Range(1, 100_000_000, "more would not end")]
AttackSteps = Annotated[int, Range(1, 10_000, "more would not end")]
Timesteps = Annotated[int, Range(2, 100_000, "with more, neighbouring noise levels are the same")]
Level = Annotated[int, Range(0, 99_999, "no schedule is longer")]
Draws = Annotated[int, Range(1, 10_000, "more would not change the mean")]
LearningRate = Annotated[float, Range(0, 10, "beyond, weights run away within a few steps", excluded=(0,))]
Weight = Annotated[float, Range(0, 1e6, "beside more, the other terms vanish")]
Radius = Annotated[float, Range(0, 1e4, "no two images are farther apart", excluded=(0,))]  # see also check_radius
Distance = Annotated[float, Range(0, 1e8, "no two images are farther apart in any norm", excluded=(0,))]
Fraction = Annotated[float, Range(0, 1, "a part of the whole", excluded=(0, 1))]
Share = Annotated[float, Range(0, 1, "a part of the whole", excluded=(1,))]


class ConfigError(ValueError):
    """A parameter that the project cannot run with; the message is one line for the user, whatever keys are called."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


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
    location = _location(problem)
    key = ".".join(part if isinstance(part, str) else _shown(part) for part in location if part != OF_A_KEY)
    if problem["type"] == "extra_forbidden":
        *parents, unknown = problem["loc"]
        return f"unknown key '{key}'{nearest(str(unknown), _keys(model, parents))}"
    if problem["type"] == "missing":
        return f"{key}: missing"
    if problem["type"] == "value_error":  # of a whole section; the message begins with the key in it
        message = _message(problem)
        return f"{key}.{message}" if key else message
    # what may be a number or a word has an error of each: "expected 'all' or a whole number"
    messages = [_message(each) for each in reversed(error.errors()) if _location(each) == location]
    message = " or ".join(messages).replace(" or expected ", " or ")
    if key and isinstance(problem["input"], str) and _may_be_null(model, location):
        message += ", or null"  # `all`, `none` and the like
    return f"{key + ': ' if key else ''}{message} (got {_shown(problem['input'])})"


EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "literal_error": "{expected}",
    "tuple_type": "a list",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "string_pattern_mismatch": "text that matches {pattern}",
}


def _message(problem: ErrorDetails) -> str:
    """What was expected, in the words of all other messages."""
    if problem["type"] in EXPECTED:
        return "expected " + EXPECTED[problem["type"]].format(**problem.get("ctx", {}))
    return problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")


OF_A_KEY = "[key]"  # the end of a location whose value is all right
TRIED = re.compile(r"(function-after|literal)\[.*\]")  # pydantic's note on which of several types was tried


def _location(problem: ErrorDetails) -> tuple[int | str, ...]:
    return tuple(part for part in problem["loc"] if not (isinstance(part, str) and TRIED.fullmatch(part)))


def _shown(value: Any) -> str:
    """Of a long one the beginning and the end."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python prints no integer of over 4,300 digits
        return "a number of thousands of digits"


def _keys(model: type[Section], parents: list[Any]) -> list[str]:
    """The valid keys of the section that `parents` leads to."""
    for parent in parents:
        annotation = _annotation(model, parent)
        # a section that may be missing is a union of it and None
        model = next(iter(get_args(annotation)), annotation)
    return [field.alias or name for name, field in model.model_fields.items()]


def _annotation(model: type[Section], key: Any) -> Any:
    return next(field.annotation for name, field in model.model_fields.items() if key in (name, field.alias))


def _may_be_null(model: type[Section], location: tuple[int | str, ...]) -> bool:
    """Whether the value at `location`, in no more than one section below `model`, is a number or null."""
    try:
        for key in location[:-1]:
            model = _annotation(model, key)
        return type(None) in get_args(_annotation(model, location[-1]))
    except (AttributeError, StopIteration):  # below a list or a mapping
        return False


def is_number(given: object) -> TypeGuard[float]:
    """Of what a caller gives: Python counts True among the numbers."""
    return isinstance(given, Real) and not isinstance(given, bool)


def check_radius(norm: Norm, eps: float, key: str = "eps", pixels: int | None = None) -> None:
    """Refuse a radius that means nothing on images in [0, 1].

    key: the parameter's name for the message. pixels: C·H·W of an image, where it is known.
    """
    diameter = 1.0 if norm == "Linf" else math.inf if pixels is None else math.sqrt(pixels)
    if not 0 < eps <= diameter:
        most = "" if diameter == math.inf else f" and at most {diameter:.4g}: no two images are farther apart"
        raise ValueError(f"{key} = {eps} for {norm}: expected above 0{most}")
