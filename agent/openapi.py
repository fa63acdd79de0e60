"""The agent API for people and generators: an OpenAPI 2 document, as the original's, and a page that shows it."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agent import answers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.routes import Operation

Json = dict[str, Any]

TITLE: Final = "Spiderpool agent"
BASE_PATH: Final = "/v1"
JSON_TYPE: Final = "application/json"
_TEXT: Final = {"type": "string"}
_NOT_REACHED: Final = {
    "description": "refused before the operation was reached",
    "schema": {"$ref": "#/definitions/CodedError"},
}


def document(operations: Iterable[Operation[Any]]) -> Json:
    operations = tuple(operations)
    forms = [form for each in operations for form in (each.body, each.query, each.gives) if form is not None]
    forms.append(answers.CodedError)
    _, schemas = msgspec.json.schema_components(forms, ref_template="#/definitions/{name}")
    definitions = {name: _in_version_2(schema) for name, schema in sorted(schemas.items())}
    paths: Json = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _described(each, definitions)
    return {
        "swagger": "2.0",
        "info": {"title": TITLE, "version": "v1"},
        "basePath": BASE_PATH,
        "consumes": [JSON_TYPE],
        "produces": [JSON_TYPE],
        "paths": paths,
        "definitions": definitions,
    }


def page(operations: Iterable[Operation[Any]]) -> str:
    rows = "".join(
        f"<tr><td>{each.method}<td><code>{BASE_PATH}{each.path}</code><td>{html.escape(each.summary)}"
        f"<td>{html.escape('; '.join(f'{status}: {why}' for status, why in each.refuses.items()))}"
        for each in operations
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{TITLE}</title><h1>{TITLE}, version 1</h1>'
        '<p>Forms of bodies and answers: <a href="/swagger.json">/swagger.json</a> (OpenAPI 2).'
        f"<table border=1><tr><th>Method<th>Path<th>What it does<th>Refusals{rows}</table></html>"
    )


def _described(operation: Operation[Any], definitions: Mapping[str, Json]) -> Json:
    success: Json = {"description": "done"}
    if operation.gives is not None:
        success["schema"] = _reference(operation.gives)
    responses = {"200": success} if operation.is_implemented else {}
    responses |= {str(code): {"description": why, "schema": _TEXT} for code, why in operation.refuses.items()}
    responses["default"] = _NOT_REACHED
    parameters: list[Json] = []
    if operation.body is not None:
        name = operation.body.__name__
        parameters = [{"in": "body", "name": name, "required": True, "schema": _reference(operation.body)}]
    elif operation.query is not None:
        form = definitions[operation.query.__name__]
        parameters = [
            {"in": "query", "name": name, "required": name in form["required"], **schema}
            for name, schema in form["properties"].items()
        ]
    described: Json = {"operationId": operation.name, "summary": operation.summary, "responses": responses}
    return {**described, "parameters": parameters} if parameters else described


def _reference(form: type) -> Json:
    return {"$ref": f"#/definitions/{form.__name__}"}


def _in_version_2(schema: Any) -> Any:
    """JSON Schema 2020-12 as OpenAPI 2 has it: no `anyOf`, and "or null" is a mark of its own."""
    if isinstance(schema, list):
        return [_in_version_2(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _in_version_2(value) for key, value in schema.items() if not (key == "default" and value is None)}
    if kept.get("required") == []:
        del kept["required"]
    alternatives = [each for each in kept.pop("anyOf", []) if each != {"type": "null"}]
    return {**kept, **alternatives[0], "x-nullable": True} if alternatives else kept
