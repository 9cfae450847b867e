"""What runs a function that is not hosted here. Every target keeps the promises of `ports.Target`."""

from esm.aws.sessions import Sessions
from esm.errors import RequestRefused
from esm.model.function import LambdaFunction, UrlFunction
from esm.ports import Target
from esm.targets.any_url import AnyUrl
from esm.targets.aws_lambda import AwsLambda
from esm.targets.http import HttpFunction
from esm.targets.rie import Rie
from esm.targets.web_adapter import WebAdapter
from esm.telemetry import Telemetry


def make_target(function: UrlFunction | LambdaFunction, sessions: Sessions, telemetry: Telemetry) -> Target:
    """The target of a function. Contacts nothing yet.

    Raises: RequestRefused for a protocol that is not served, or what its protocol or Url cannot have.
    """
    match function:
        case LambdaFunction():
            return AwsLambda(function, sessions, telemetry)
        case UrlFunction(protocol="rie"):
            return HttpFunction(function, Rie(function), telemetry)
        case UrlFunction(protocol="web-adapter"):
            return HttpFunction(function, WebAdapter(function), telemetry)
        case UrlFunction(protocol="http"):
            return HttpFunction(function, AnyUrl(function), telemetry)
        case UrlFunction():
            text = f"The protocol {function.protocol!r} of the function {function.key!r} is not served"
            raise RequestRefused(f"{text}: use rie, web-adapter or http.")
