"""Every number of every parameter file has a range, and whatever is written into a file is in it or refused."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pag.foundation.config.conf import Conf
from pag.foundation.config.params import Params
from pag.foundation.config.runs import variant_of
from pag.foundation.config.section import ConfigError, Range, Section, check, read_yaml
from pag.foundation.config.toy import ToyConfig

ROOT = Path(__file__).parents[2]
FILES = {
    "params.yaml": (Params, read_yaml(ROOT / "params.yaml")),
    "conf/toy.yaml": (ToyConfig, read_yaml(ROOT / "conf/toy.yaml")),
    "conf/digits.yaml": (Conf, read_yaml(ROOT / "conf/digits.yaml")),
    "conf/cifar10.yaml": (Conf, read_yaml(ROOT / "conf/cifar10.yaml")),
}


def sections(above: type[Section] = Section) -> Iterator[type[Section]]:
    for section in above.__subclasses__():
        yield section
        yield from sections(section)


FIELDS = [
    (section, name) for section in sections() if section.__module__.startswith("pag") for name in section.model_fields
]


def numbers(annotation: Any, metadata: tuple[Any, ...] = ()) -> Iterator[list[Range]]:
    """The ranges of each number that a type holds, however deep."""
    if get_origin(annotation) is Annotated:
        yield from numbers(get_args(annotation)[0], (*metadata, *annotation.__metadata__))
    elif annotation in (int, float):
        yield [each for each in metadata if isinstance(each, Range)]
    else:
        for part in get_args(annotation):
            yield from numbers(part)


@pytest.mark.parametrize(("section", "name"), FIELDS, ids=[f"{each.__name__}.{name}" for each, name in FIELDS])
def test_every_number_has_a_range(section: type[Section], name: str) -> None:
    field = section.model_fields[name]
    for ranges in numbers(field.annotation, tuple(field.metadata)):
        (only,) = ranges
        assert -1e9 < only.low < only.high < 1e10
        assert only.why


def test_the_walk_sees_numbers_at_any_depth() -> None:
    bound = Range(0, 1, "a reason")
    deep = dict[str, tuple[Annotated[float, bound], ...] | None] | list[Annotated[int, "a note"]]
    assert list(numbers(deep)) == [[bound], []]
    assert list(numbers(bool | str)) == []


def outside(section: Section) -> list[tuple[str, Any]]:
    """The numbers of a section that are not in the range of their field; `variants` are sections by themselves."""
    found: list[tuple[str, Any]] = []
    for name, field in type(section).model_fields.items():
        ranges = [each for each, *_ in numbers(field.annotation, tuple(field.metadata))]
        chosen = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        for value in leaves(getattr(section, name)) if name != "variants" else ():
            if isinstance(value, Section):
                found += outside(value)
            elif not isinstance(value, bool) and isinstance(value, int | float) and value not in chosen:
                found += [(name, value)] * (not any(value in each for each in ranges))
    return found


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from leaves(part)
    else:
        yield value


def paths(content: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every key and every entry of a list is."""
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield (*above, key)
        yield from paths(content[key], (*above, key))


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**30, max_value=10**6000)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["L2", "Linf", "sbg", "at-l2", "all", "cnn", "toy", "digits", "single"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | SCALARS, inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data(), file=st.sampled_from(sorted(FILES)))
@settings(max_examples=400, deadline=None)
def test_a_changed_file_is_in_range_or_refused_in_a_line_with_the_key(data: st.DataObject, file: str) -> None:
    model, content = FILES[file]
    content = copy.deepcopy(content)
    path = data.draw(st.sampled_from(list(paths(content))))
    section = content
    for key in path[:-1]:
        section = section[key]
    how = data.draw(st.sampled_from(["another value", "none", "one more key"]))
    if how == "another value":
        section[path[-1]] = data.draw(VALUES)
    elif how == "none":
        del section[path[-1]]
    elif isinstance(section, dict):
        section[data.draw(st.text(max_size=8) | SCALARS)] = data.draw(VALUES)
    try:
        accepted = check(model, content, file)
        names = accepted.variants if isinstance(accepted, Conf) else {}
        variants = [variant_of(accepted, file, name) for name in names]
    except ConfigError as error:
        message = str(error)
        assert len(message.splitlines()) == 1
        assert message.startswith(f"{file}: ") or message.startswith(f"conf/{file}.yaml: ")
        if how != "one more key":
            named = [str(key) for key in path if isinstance(key, str)]
            assert any(key in message for key in named), (path, message)
        return
    for each in (accepted, *variants):
        assert outside(each) == []
