"""Why a request is not valid, in the caller's language: what `VALIDATION_ERROR` says in English, in Portuguese too.

Used by the gateway beside `codes.text` and `advice`. Read from the English sentence, because deciders give theirs as a
fact; one that is not here stays English. In Portuguese a field is called as it was sent, not by its English words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from proto.codes import Language

_KINDS: Mapping[str, str] = {
    "an integer": "um inteiro",
    "a number": "um número",
    "a string": "um texto",
    "true or false": "true ou false",
    "a boolean": "um booleano",
    "a list": "uma lista",
    "an object": "um objeto",
    "an instant": "um instante",
    "null": "null",
}
_PARTS: Mapping[str, tuple[str, str]] = {
    "character": ("caractere", "caracteres"),
    "item": ("item", "itens"),
    "field": ("campo", "campos"),
}
_BOUNDS: Mapping[str, str] = {"at most": "no máximo", "at least": "no mínimo"}
_ENGLISH_KIND = "|".join(_KINDS)


def _kinds(words: str) -> str:
    return " ou ".join(_KINDS[word] for word in re.findall(_ENGLISH_KIND, words))


# What is said of a field, after its name. `- at $[0]` says where in it.
_SAID_OF_A_FIELD: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"is required", lambda _: "é obrigatório"),
    (r"must be one of (.+)", lambda said: f"deve ser um de: {said[1]}"),
    (
        rf"must be ((?:(?:{_ENGLISH_KIND})(?: or )?)+), not ({_ENGLISH_KIND})",
        lambda said: f"deve ser {_kinds(said[1])}, não {_KINDS[said[2]]}",
    ),
    (
        r"must have (at most|at least) (\d+) (character|item|field)s?",
        lambda said: f"deve ter {_BOUNDS[said[1]]} {said[2]} {_PARTS[said[3]][said[2] != '1']}",
    ),
    (r"must be (an integer|a number) ([<>]=?) (\S+)", lambda said: f"deve ser {_KINDS[said[1]]} {said[2]} {said[3]}"),
    (r"must match (.+)", lambda said: f"deve corresponder a {said[1]}"),
    (r"must be a number", lambda _: "deve ser um número"),
    (r"must be a number in range", lambda _: "deve ser um número dentro dos limites"),
    (r"must be an RFC 3339 instant", lambda _: "deve ser um instante RFC 3339"),
    (r"has an unknown field (\S+)", lambda said: f"tem um campo desconhecido: {said[1]}"),
    (r"lacks the field (\S+)", lambda said: f"não tem o campo {said[1]}"),
    (r"is not valid", lambda _: "não é válido"),
    (r"must be (\d+) to (\d+)", lambda said: f"deve ser de {said[1]} a {said[2]}"),
    (r"must be (\d+) to (\d+) printable ASCII characters",
     lambda said: f"deve ter de {said[1]} a {said[2]} caracteres ASCII imprimíveis"),
    (r"must be UTF-8 with at most (\d+) fields", lambda said: f"deve ser UTF-8 com no máximo {said[1]} campos"),
    (r"must be a JSON object", lambda _: "deve ser um objeto JSON"),
    (r"must be valid JSON: nested too deeply", lambda _: "deve ser JSON válido: aninhado demais"),
    (r"must be valid JSON: Input data was truncated", lambda _: "deve ser JSON válido: está incompleto"),
    (r"must be valid JSON: .*\(byte (\d+)\)", lambda said: f"deve ser JSON válido: erro no byte {said[1]}"),
    (r"must be valid JSON: .*", lambda _: "deve ser JSON válido, em UTF-8"),
    (r"must not contain the character U\+0000", lambda _: "não pode conter o caractere U+0000"),
    (r"must be what its Content-Encoding and Transfer-Encoding say",
     lambda _: "deve ser o que dizem seu Content-Encoding e seu Transfer-Encoding"),
    (r"must say its time zone, for example (\S+)", lambda said: f"deve dizer seu fuso horário, por exemplo {said[1]}"),
    (r"must be a day \((\S+)\) or an instant \((\S+)\)",
     lambda said: f"deve ser um dia ({said[1]}) ou um instante ({said[2]})"),
    (r"must be 0 or at least (\S+)", lambda said: f"deve ser 0 ou no mínimo {said[1]}"),
    (r"must be in the future", lambda _: "deve estar no futuro"),
    (r"must not be in the future", lambda _: "não pode estar no futuro"),
    (r"must be what an earlier answer carried", lambda _: "deve ser o que uma resposta anterior trouxe"),
    (r"differ between query and body", lambda _: "difere entre a query e o corpo"),
    (r"contradicts failover_enabled (true|false); send one of them",
     lambda said: f"contradiz failover_enabled {said[1]}; envie um dos dois"),
    (r"names a rung twice", lambda _: "repete um degrau"),
)  # fmt: skip
_OF_A_FIELD = tuple(
    (re.compile(rf"(?:.*? )??{form}(?: - at (?P<place>\$\S*))?", re.DOTALL), translated)
    for form, translated in _SAID_OF_A_FIELD
)
# Whole sentences.
_SENTENCES: tuple[tuple[str, str], ...] = (
    (r"Unknown field (.+)", r"Campo desconhecido: \1"),
    (r"Unknown event (.+?); GET (\S+) lists them", r"Evento desconhecido: \1; GET \2 lista todos"),
    (r"At most (\d+) types; leave it out for all of them", r"No máximo \1 tipos; omita para receber todos"),
    (
        r"No such event in this account; use an event's id, next_after, start or now",
        "Não há esse evento nesta conta; use o id de um evento, next_after, start ou now",
    ),
    (r"Exactly one of gpu and offer_id is required", "Envie gpu ou offer_id: exatamente um dos dois"),
    (r"name and label are the same field; send one of them", "name e label são o mesmo campo; envie um dos dois"),
    (
        r"Release must be true or left out: a disabled pool has no use for its standby",
        "release deve ser true ou omitido: um pool desativado não tem uso para seu standby",
    ),
    (r"it is not a URL", "não é uma URL"),
    (
        r"(.+) stands for what is not shown; send the whole URL, or leave it out",
        r"\1 está no lugar do que não é mostrado; envie a URL inteira ou omita o campo",
    ),
    (
        r"only webhook is sent here; send that, and make one with (.+)",
        r"aqui só webhook é enviado; use esse e crie um com \1",
    ),
    (r"only http and https can be delivered to", "só é possível entregar a http e https"),
    (
        r"port (\d+) is not one for receivers; use 80, 443 or one above 1023",
        r"a porta \1 não é de receptores; use 80, 443 ou uma acima de 1023",
    ),
    (r"its address is not on the public internet", "seu endereço não está na internet pública"),
    (r"use https", "use https"),
    (
        r"a user name or password in the URL is not sent; use the secret",
        "usuário ou senha na URL não são enviados; use o secret",
    ),
)
_WHOLE = tuple((re.compile(form), portuguese) for form, portuguese in _SENTENCES)
_SUBJECTS: Mapping[str, str] = {"body": "O corpo", "query": "A query"}


def reason_in(language: Language, english: str, field: str) -> str:
    """`field` is the path of what is wrong, as in the answer's `details`."""
    if language != "pt":
        return english
    for form, portuguese in _WHOLE:
        found = form.fullmatch(english)
        if found is not None:
            return found.expand(portuguese)
    for form, translated in _OF_A_FIELD:
        found = form.fullmatch(english)
        if found is not None:
            place = f" (em {found['place']})" if found["place"] else ""
            return f"{_SUBJECTS.get(field, field.rpartition('.')[2])} {translated(found)}{place}"
    return english
