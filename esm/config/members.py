"""Every member of a function, by what it is: hosted here, behind a URL, pulling from here, or in AWS Lambda.

Law: this is the one list. Reading checks against it, and the JSON schema is made from it.
Source: lambda.md 5, 7.4, 7.7 (limits); wire-shapes.md 4.9.
"""

from esm.rules.shapes import Flag, Free, Items, Members, Shape, Text, Whole, Words

_TO: dict[str, Shape] = {"Destination": Text(most=350, word="an ARN")}

EVENT_INVOKE_CONFIG: dict[str, Shape] = {
    "MaximumRetryAttempts": Whole(0, 2),
    "MaximumEventAgeInSeconds": Whole(60, 21_600),
    "DestinationConfig": Members({"OnSuccess": Members(_TO), "OnFailure": Members(_TO)}),
}
DEAD_LETTER_CONFIG: dict[str, Shape] = {"TargetArn": Text(word="an ARN")}
DESCRIPTION_LENGTH = 256
PROTOCOLS = ("rie", "web-adapter", "http")
RUNTIME_API = "runtime-api"
LOOPS = ("Allow", "Terminate")
NETWORKS = ("host", "none")

_EVERYWHERE: dict[str, Shape] = {
    "RecursiveLoop": Text(choices=LOOPS),
    "Connection": Text(least=1),
    "Description": Text(most=DESCRIPTION_LENGTH),
}
_ASYNCHRONOUS: dict[str, Shape] = {
    "EventInvokeConfig": Members(EVENT_INVOKE_CONFIG),
    "DeadLetterConfig": Members(DEAD_LETTER_CONFIG),
}
HEADER_FROM: dict[str, Shape] = {"Env": Text(least=1), "File": Text(least=1)}

HOSTED: dict[str, Shape] = {
    "Runtime": Text(), "Handler": Text(), "CodeUri": Text(), "Timeout": Whole(1, 900), "MemorySize": Whole(128, 10_240),
    "ReservedConcurrentExecutions": Whole(0, 1000),
    "ProvisionedConcurrencyConfig": Members({"ProvisionedConcurrentExecutions": Whole(1, 1000)}),
    "Layers": Items(Text(least=1)), "EphemeralStorage": Members({"Size": Whole(512, 10_240)}),
    "FileSystemConfigs": Items(Members({"Path": Text(least=1), "LocalMountPath": Text(least=1)})),
    "Network": Text(choices=NETWORKS), "Environment": Members({"Variables": Words()}), "Role": Text(),
    **_ASYNCHRONOUS, **_EVERYWHERE,
}  # fmt: skip
BEHIND_URL: dict[str, Shape] = {
    "Url": Text(), "Protocol": Text(choices=PROTOCOLS), "Timeout": Whole(1, 900), "Role": Text(),
    "Headers": Words(), "HeadersFrom": Free(), "BearerTokenFile": Text(least=1), "CaFile": Text(least=1),
    "ClientCertFile": Text(least=1), "ClientKeyFile": Text(least=1), "MaxConcurrency": Whole(1, 10_000),
    "ErrorStatusCodes": Free(), **_ASYNCHRONOUS, **_EVERYWHERE,
}  # fmt: skip
PULLING: dict[str, Shape] = {
    "Listen": Free(), "Protocol": Text(choices=(RUNTIME_API,)), "Timeout": Whole(1, 900), "Role": Text(),
    "TokenFile": Text(least=1), "CertFile": Text(least=1), "KeyFile": Text(least=1), "ClientCaFile": Text(least=1),
    "Insecure": Flag(), "MaxConcurrency": Whole(1, 1000), **_ASYNCHRONOUS, **_EVERYWHERE,
}  # fmt: skip
IN_LAMBDA: dict[str, Shape] = {"Arn": Text(), **_EVERYWHERE}

ELSEWHERE = frozenset({
    "Layers", "VpcConfig", "FileSystemConfigs", "EphemeralStorage", "Architectures", "PackageType", "ImageConfig",
    "ImageUri", "TracingConfig", "KMSKeyArn", "SnapStart", "LoggingConfig", "Tags", "Code", "FunctionName",
    *HOSTED, *BEHIND_URL, *PULLING, *IN_LAMBDA,
})  # fmt: skip
"""Members that mean something for other functions, or on AWS: refused by name."""
