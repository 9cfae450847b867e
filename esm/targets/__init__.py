"""What runs a function that is not hosted here. Every target keeps the promises of `ports.Target`."""

from esm.aws.sessions import Sessions
from esm.model.function import LambdaFunction, UrlFunction
from esm.ports import Target
from esm.targets.aws_lambda import AwsLambda
from esm.targets.http import HttpFunction
from esm.telemetry import Telemetry


def make_target(function: UrlFunction | LambdaFunction, sessions: Sessions, telemetry: Telemetry) -> Target:
    """The target of a function. Contacts nothing yet."""
    match function:
        case LambdaFunction():
            return AwsLambda(function, sessions, telemetry)
        case UrlFunction():
            return HttpFunction(function, telemetry)
