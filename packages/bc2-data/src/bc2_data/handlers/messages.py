"""Lists of messages, as OpenAI and ShareGPT write them.

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
    {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}

A message may say whether it is trained, by ``"train": true`` or ``false``, or by OpenAI's
``"weight": 1`` or ``0``. Where it does not, the layout decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from bc2_data.errors import nearest
from bc2_data.handlers.base import Kind, Sample, Text, Unusable, text_field
from bc2_data.handlers.options import HandlerOptions
from bc2_data.handlers.templates import Message, Role, Template, make_template
from bc2_data.special_tokens import SpecialIds

_LISTS = ("messages", "conversations")
_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
_FLAGS = ("train", "weight")


class MessagesHandler:
    """Takes conversations of user and assistant in any order, after a system text or none.

    The system text is the first message or, as in ShareGPT, the row's field ``system``.
    """

    kind: ClassVar[Kind] = "instruction"

    def __init__(self, template: Template) -> None:
        self.columns: tuple[str, ...] = (*_LISTS, "system")
        self._template = template

    @classmethod
    def create(cls, options: HandlerOptions, special: SpecialIds) -> Self:
        """Returns the handler that the options ask for."""
        options.refuse("text_key", "messages")
        return cls(make_template(options, special))

    def render(self, fields: Mapping[str, Any]) -> Sample:
        """Returns the sample of a whole conversation."""
        messages = [_message(entry, place) for place, entry in _entries(fields)]
        if fields.get("system"):
            messages.insert(0, Message("system", text_field(fields, "system")))
        if any(message.role == "system" for message in messages[1:]):
            raise Unusable("bad_row", "a system message stands behind another message")
        if not any(message.text for message in messages if message.role == "assistant"):
            raise Unusable("no_text", "the assistant says nothing")
        sample = self._template.render(messages)
        if not any(isinstance(part, Text) and part.trained for part in sample):
            raise Unusable("nothing_trained", "no message is to be trained")
        return sample


def _entries(fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Returns the messages as they are, each with its place, such as ``messages[0]``."""
    name = next((name for name in _LISTS if fields.get(name) is not None), None)
    if name is None:
        near = nearest(_LISTS[0], fields) if fields else "the row has no fields"
        raise Unusable("bad_row", f"no column {' or '.join(map(repr, _LISTS))}", near)
    entries = fields[name]
    if not isinstance(entries, list):
        raise Unusable("bad_row", f"{name!r} holds {type(entries).__name__}, not a list")
    return [(f"{name}[{index}]", entry) for index, entry in enumerate(entries)]


def _message(entry: Any, place: str) -> Message:
    if not isinstance(entry, Mapping):
        raise Unusable("bad_row", f"{place} holds {type(entry).__name__}, not an object")
    role_field, text_name = ("from", "value") if "from" in entry else ("role", "content")
    try:
        role = text_field(entry, role_field)
        text = text_field(entry, text_name)
    except Unusable as unusable:
        raise Unusable(unusable.reason, f"{place}: {unusable.why}", unusable.hint) from unusable
    if role not in _ROLES:
        raise Unusable("bad_row", f"{place}: the role {role!r} is unknown", nearest(role, _ROLES))
    return Message(_ROLES[role], text, _trained(entry, place))


def _trained(entry: Mapping[str, Any], place: str) -> bool | None:
    """Returns what a message says about itself."""
    said = {name: entry[name] for name in _FLAGS if entry.get(name) is not None}
    for name, value in said.items():
        if value not in (0, 1):  # True and 1.0 are equal to 1
            raise Unusable("bad_row", f"{place}: {name!r} is {value!r}, neither true nor false")
    if len(set(said.values())) > 1:
        raise Unusable("bad_row", f"{place}: {' and '.join(map(repr, said))} contradict each other")
    return bool(next(iter(said.values()))) if said else None
