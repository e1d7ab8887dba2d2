"""Values that somebody, somewhere, reads in another way."""

from typing import Final


class Verbatim(str):
    """Text that goes into the JSON as it stands."""

    __slots__ = ()


STRINGS: Final = (
    "", " ", "x", "echo", "danger", "Danger", "danger\n", "da\u0000nger", "\u202edanger", "e\u0301", "\u00e9", "\ufeff",
    "\U0001f600", "tools/call", "Tools/Call", "tools/call ", "tools/list", "ping", "../../etc/passwd", "%2e%2e%2f",
    "' OR 1=1 --", "${jndi:ldap://x}", "{{7*7}}", "<script>", "true", "null", "1", "01", "1e3", "-0", "NaN", "2026-07-28",
    "2025-06-18", "1999-01-01", "a" * 129, "b" * 5_000, "=?base64?ZWNobw==?=", "=?base64?!!?=", "role:support", "*",
    Verbatim('"\\ud800"'), Verbatim('"\\udc00\\ud800"'), Verbatim('"\\ud83d\\ude00"'), Verbatim('"\\u0000"'),
    Verbatim('"\\x41"'), Verbatim('"line\nbreak"'), Verbatim("'single'"), Verbatim("unquoted"),
)  # fmt: skip
NUMBERS: Final = (
    0, 1, -1, 7, 255, 2**31, 2**53 - 1, 2**53, -(2**53), 2**63, 2**64, 10**30, 0.1, 1.0, 1.5, -0.0, 1e300, 5e-324, 4500,
    900_000, -4500, 10_000.0,
    *map(Verbatim, ("1e400", "-1e400", "1E2", "0.10", "00", "01", "+1", "1.", ".5", "0x10", "NaN", "Infinity",
                    "-Infinity", "1_000", "1e-400", "9007199254740993", "9007199254740992.0", "1" * 400, "-0")),
)  # fmt: skip
HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"host", b"evil.example"), (b"host", b""), (b"origin", b"https://evil.example"), (b"origin", b"null"),
    (b"origin", b"http://gw.test:8700"), (b"content-type", b"text/plain"), (b"content-type", b"application/xml"),
    (b"content-type", b"application/json; charset=utf-16"), (b"content-type", b'application/json;charset="utf-8"'),
    (b"content-type", b"multipart/form-data; boundary=x"), (b"content-encoding", b"gzip"), (b"content-encoding", b"identity"),
    (b"transfer-encoding", b"chunked"), (b"content-length", b"3"), (b"content-length", b"99999999"),
    (b"content-length", b"-1"), (b"content-length", b"\xb2"), (b"content-length", b"9" * 5_000), (b"expect", b"100-continue"),
    (b"upgrade", b"websocket"), (b"connection", b"upgrade"), (b"connection", b"content-type, authorization, mcp-method"),
    (b"te", b"trailers"), (b"trailer", b"x-amount"), (b"x-http-method-override", b"DELETE"), (b"x_method_override", b"DELETE"),
    (b"x-original-url", b"/admin"), (b"x-rewrite-url", b"/admin"), (b"x-forwarded-for", b"10.0.0.1"),
    (b"x-forwarded-host", b"evil.example"), (b"x-forwarded-user", b"root"), (b"forwarded", b"for=10.0.0.1"),
    (b"x-real-ip", b"10.0.0.1"), (b"cookie", b"session=cookie-of-the-agent"), (b"x-api-key", b"x-key-of-the-agent"),
    (b"x_api_key", b"x-key-of-the-agent"), (b"proxy-authorization", b"Basic cHJveHk6c2VjcmV0LW9mLXRoZS1hZ2VudA=="),
    (b"traceparent", b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01"), (b"traceparent", b"garbage"),
    (b"traceparent", b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-00"), (b"tracestate", b"client=1"),
    (b"baggage", b"task=label-of-the-client"), (b"whygate-task", b"nonsense"), (b"whygate-task", b"\xff\xfe"),
    (b"whygate-workflow", b"label-of-the-client"), (b"whygate-incident", b"label-of-the-client"),
    (b"whygate-decision", b"forged"), (b"whygate-outcome", b"permitted"), (b"mcp-session-id", b"s-1"),
    (b"mcp-session-id", b"stolen-session"), (b"mcp-session-id", b"\xff"), (b"mcp-method", b"tools/list"),
    (b"mcp-method", b"tools/call"), (b"mcp-name", b"echo"), (b"mcp-name", b"danger"), (b"mcp-name", b"=?base64?ZWNobw==?="),
    (b"mcp-name", b"=?base64?ZWNobw?="), (b"mcp-protocol-version", b"2026-07-28"), (b"mcp-protocol-version", b"2025-06-18"),
    (b"mcp-protocol-version", b"nonsense"), (b"mcp-param-text", b"other"), (b"accept", b"text/event-stream"),
    (b"accept", b""), (b"last-event-id", b"1"), (b"prefer", b"wait=10"), (b"x-long", b"v" * 9_000), (b"x-odd", b"\x80\xff\xfe"),
    (b"x-empty", b""), (b"range", b"bytes=0-1"), (b"if-none-match", b"*"), (b"via", b"1.1 me"), (b"max-forwards", b"0"),
)  # fmt: skip
PATH_BITS: Final = (
    b"%2f", b"%2F", b"%5c", b"\\", b";", b";a=1", b"%3b", b".", b"..", b"%2e", b"%2e%2e", b"%252e", b"%252f", b"%25", b"%",
    b"%zz", b"%00", b"%0a", b"%20", b"+", b"/", b"//", b"%c0%af", b"%ff", b"%ef%bc%8f", b"%E2%80%8B", b"*", b"~", b"@", b":",
    b"|", b"^", b"<", b'"', b"{x}", b"`", b"'", b"#", b"%23", b"?", b"%3f", b"\x80", b"\xc3\xa9", b" ", b"\t", b"&", b"=",
)  # fmt: skip
QUERY_BITS: Final = (
    b"a=1", b"A=1", b"limit=5", b"limit=05", b"limit=+5", b"limit=5.0", b"limit=5&limit=6", b"paid=True", b"paid=1", b"tag=",
    b"tag=a%2Cb", b"ids=1,,2", b"ids=1,2,x", b"amount_cents=1", b"amount_cents[]=1", b"amount.cents=1", b"_method=DELETE",
    b"_METHOD=DELETE", b"x", b"=", b"=1", b"x=", b"%", b"%zz=1", b"a=%ff", b"a=%00", b"a=%C3%A9", b"a=b+c", b"a=b%2Bc", b"a=b%20c",
    b"a='", b'a="', b"a=<>", b"a=|", b"a={}", b"a=^`", b"a=\\", b"a=#b", b"a=\xc3\xa9", b"a=\xff", b"a=1;b=2", b"invoice_id=2",
    b"Invoice_Id=2", b"invoice_id%5B%5D=2", b"a=" + b"v" * 20_000, b"&".join(b"f%d=1" % n for n in range(300)), b"__proto__[x]=1",
    b"a=%u0041", b"a=1&a=1", b"%61=1", b"verbose=no",
)  # fmt: skip
