"""Groups of options: declared once as a frozen dataclass, expanded into the signature of a command."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, ParamSpec, TypeVar, get_type_hints

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def expanded(command: Callable[Arguments, Result]) -> Callable[..., Result]:
    """The command with one parameter for each field of its parameters that are dataclasses.

    typer makes an option of every parameter; the command itself takes `names: ModuleOptions` and gets one value.
    """
    parameters: list[Parameter] = []
    groups: dict[str, tuple[type[Any], list[str]]] = {}
    for parameter in signature(command, eval_str=True).parameters.values():
        group = parameter.annotation
        if isinstance(group, type) and is_dataclass(group):
            hints = get_type_hints(group, include_extras=True)
            groups[parameter.name] = (group, [field.name for field in fields(group)])
            parameters += [
                Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
                for field in fields(group)
            ]
        else:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**values: Any) -> Result:
        for name, (group, own) in groups.items():
            values[name] = group(**{field: values.pop(field) for field in own})
        return command(**values)  # type: ignore[call-arg]

    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
