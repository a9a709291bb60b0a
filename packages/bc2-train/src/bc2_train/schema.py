"""Reads nested dictionaries into frozen dataclasses, strictly.

Unknown keys, wrong types and values outside a Literal are errors that name the key as a user
writes it (``optimizer.lr``) and the nearest key there is. A field whose name is a Python keyword
ends in an underscore, which its key does not have: ``global_`` is read from ``global``.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from bc2_data.errors import nearest
from bc2_train.errors import TrainError

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Returns a dataclass instance with values from a nested dictionary.

    Args:
        cls: A dataclass whose fields are of type bool, int, float, str, Literal, a tuple or
            dict of these, one of these or None, or another such dataclass.
        values: Keys and values, nested as the dataclasses are.
        where: The key under which `values` stands, for errors.

    Raises:
        TrainError: A key is unknown or missing, or a value is of another type.
    """
    fields = {_key(field): field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        name = f"{where}{key}"
        if key not in fields:
            known = [f"{where}{known_key}" for known_key in fields]
            raise TrainError(f"unknown key {name!r}", nearest(name, known))
        field = fields[key]
        arguments[field.name] = _convert(hints[field.name], value, name)
    for key, field in fields.items():
        if field.name not in arguments and _required(field):
            raise TrainError(f"the key {where}{key} is missing", f"add --set {where}{key}=VALUE")
    return cls(**arguments)


def dump(config: Any) -> dict[str, Any]:
    """Returns the nested dictionary from which `build` makes an equal instance."""
    values = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            value = dump(value)
        values[_key(field)] = list(value) if isinstance(value, tuple) else value
    return values


def _key(field: dataclasses.Field[Any]) -> str:
    return field.name.rstrip("_")


def _required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _convert(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise TrainError(f"{name} is {value!r}, not a group of keys")
        return build(typing.cast(type, hint), value, f"{name}.")
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        if value is None:
            return None
        (hint,) = (option for option in typing.get_args(hint) if option is not types.NoneType)
        return _convert(hint, value, name)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise TrainError(f"{name} is {value!r}, not a group of keys")
        key_type, value_type = typing.get_args(hint)
        return {
            _convert(key_type, key, name): _convert(value_type, entry, f"{name}.{key}")
            for key, entry in value.items()
        }
    if origin is typing.Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise TrainError(f"{name} is {value!r}", nearest(str(value), map(str, choices)))
        return value
    if origin is tuple:
        options = typing.get_args(hint)
        if options[-1] is Ellipsis:
            if not isinstance(value, list | tuple):
                raise TrainError(f"{name} is {value!r}, not a list")
            options = (options[0],) * len(value)
        if not isinstance(value, list | tuple) or len(value) != len(options):
            raise TrainError(f"{name} is {value!r}, not a list of {len(options)} numbers")
        return tuple(_convert(*pair, name) for pair in zip(options, value, strict=True))
    if hint is float and not isinstance(value, bool):
        # YAML 1.1 reads 1e-6, without a dot, as a text.
        try:
            return float(value)
        except (TypeError, ValueError):
            raise TrainError(f"{name} is {value!r}, not a number") from None
    if type(value) is not hint:
        kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        raise TrainError(f"{name} is {value!r}, not {kinds[hint]}")
    return value
