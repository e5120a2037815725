"""What docs/policy.md says becomes of a call, written from that page and not from the agent's code.

A policy is a dictionary:

    groups, mode            of the host
    services                {name: {protocol, allow, grants, denies, mode}}; a rule is {from, methods, paths}
    document                {groups, mode, modes, grants, denies}; rules and modes there also have `services`
"""
import re
import unicodedata
from dataclasses import dataclass, field

UNRESERVED = set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
# RFC 3986: what a path may hold besides, without the `;` that is refused.
RAW = UNRESERVED | set(b"/:@!$&'()*+,=")
# No request line holds these; whoever reads HTTP refuses them.
NOT_HTTP = re.compile(r"[\x00-\x20<>`\x7f]")
STRICTNESS = ["enforce", "audit", "permissive"]

PATH_FIELDS = {"x-original-url", "x-rewrite-url"}
METHOD_FIELDS = {"x-http-method", "x-http-method-override", "x-method-override"}
# What servers take for a proxy's word: no service of these tests trusts its callers with any.
UNTRUSTED = {"x-original-uri", "x-original-url", "x-rewrite-url", "x-accel-redirect", "x-client-cert", "remote-user", "x-remote-user"}
UNTRUSTED_PREFIXES = ("ssl-client-", "x-ssl-client-", "x-auth-request-")
CLAIMS = {"x-forwarded-client-cert", "client-cert", "client-cert-chain"}
HOP = {"connection", "te", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection"}


class Ambiguous(Exception):
    """A path that servers read in more than one way."""


@dataclass
class Outcome:
    """`reason` is what a refused caller is told; `path` and `headers` are what the app gets."""
    allowed: bool
    reason: str | None = None
    granted: bool = False
    path: str | None = None
    headers: list = field(default_factory=list)


def meaning(raw):
    """The decoded segments of a path, and the form in which it is passed on."""
    path = raw.encode()
    if not path.startswith(b"/") or len(path) > 8192:
        raise Ambiguous
    units = re.findall(rb"%[0-9A-Fa-f]{2}|[^%]|%", path, re.DOTALL)
    if b"%" in units:
        raise Ambiguous
    decoded = [(int(unit[1:], 16), True) if len(unit) == 3 else (unit[0], False) for unit in units]
    try:
        text = bytes(byte for byte, _ in decoded).decode()
    except UnicodeDecodeError:
        raise Ambiguous from None
    if any(unicodedata.category(char) == "Cc" or char in "\\;" for char in text):
        raise Ambiguous
    if (ord("/"), True) in decoded or (ord("#"), False) in decoded:
        raise Ambiguous
    if re.search(r"%[0-9A-Fa-f]{2}", text):
        raise Ambiguous
    segments = text.split("/")[1:]
    if "" in segments[:-1] or "." in segments or ".." in segments:
        raise Ambiguous
    form = "".join(
        chr(byte) if byte in UNRESERVED or (byte in RAW and not hidden) else f"%{byte:02X}" for byte, hidden in decoded)
    return segments, form


def matches(pattern, segments, either_end):
    """`either_end`: a `/` at the end makes no difference."""
    prefix = pattern.endswith("/**")
    parts = [] if pattern == "/**" else pattern.removesuffix("/**").split("/")[1:]
    wanted = [None if re.fullmatch(r"\{.+\}", part) else meaning("/" + part)[0][0] for part in parts]
    if either_end:
        wanted = [part for part in wanted if part != ""]
        segments = [segment for segment in segments if segment != ""]
    if len(segments) < len(wanted) or (len(segments) > len(wanted) and not prefix):
        return False
    return all(got != "" if want is None else got == want for want, got in zip(wanted, segments))


def is_from(rule, name, groups):
    return any(who == "*" or who == name or (who.startswith("group:") and name in groups[who[6:]]) for who in rule["from"])


def names(listed, service, groups):
    return any(
        who == "*" or who == service or (who.startswith("group:") and service in groups[who[6:]]) for who in listed)


def mode_of(policy, service):
    host, document = policy["services"][service], policy.get("document") or {}
    groups = document.get("groups") or {}
    named = [one["mode"] for one in document.get("modes", []) if names(one["services"], service, groups)]
    nearest = [min(named, key=STRICTNESS.index) if named else None, host.get("mode"), document.get("mode"),
               policy.get("mode")]
    return next((mode for mode in nearest if mode), "enforce")


def rules_of(policy, service, kind):
    """Grants or denials that are about a service, each with the groups of the place where it stands."""
    host = policy["services"][service]
    if kind == "grants":
        yield from (({"from": [who]}, policy["groups"]) for who in host["allow"])
    yield from ((rule, policy["groups"]) for rule in host[kind])
    document = policy.get("document") or {}
    groups = document.get("groups") or {}
    yield from ((rule, groups) for rule in document.get(kind, []) if names(rule["services"], service, groups))


def judge(policy, caller, callee, method=None, path="/", headers=()):
    """`method` is none for a connection to a service that speaks tcp."""
    lax = mode_of(policy, callee) != "enforce"
    denies, grants = list(rules_of(policy, callee, "denies")), list(rules_of(policy, callee, "grants"))
    looks_at = {key for rule, _ in denies + grants for key in ("methods", "paths") if rule.get(key)}
    target = path if method is not None else None
    if target is not None:
        if not target.startswith(("/", "*")) or NOT_HTTP.search(target):
            return Outcome(False, "bad-request")
    mesh, kind, name = re.fullmatch(r"spiffe://([^/]+)/([a-z]+)/(.+)", caller).groups()
    if mesh != "mesh.test" or kind != "svc":
        return Outcome(False, "denied")
    denies = [rule for rule, groups in denies if is_from(rule, name, groups)]
    grants = [rule for rule, groups in grants if is_from(rule, name, groups)]

    def plain(rule):
        return not rule.get("methods") and not rule.get("paths")

    def outcome(granted, reason, form=None):
        if not granted and not lax:
            return Outcome(False, reason)
        passed = list(forwarded(headers, looks_at)) + [("starling-caller", caller)] if method is not None else []
        return Outcome(True, None, granted, form, passed)

    if method is None:
        return outcome(not denies and any(map(plain, grants)), "denied")
    raw, mark, query = target.partition("?")
    segments, form = [], target
    if "paths" in looks_at:
        try:
            segments, form = meaning(raw)
            form += mark + query
        except Ambiguous:
            told = "ambiguous-path" if grants and not any(map(plain, denies)) else "denied"
            return outcome(False, told, target)

    def denied(rule):
        wanted = [one.upper() for one in rule.get("methods") or []]
        verbs = {method.upper()} | ({"GET"} if method.upper() == "HEAD" else set())
        paths = rule.get("paths")
        return (not wanted or verbs & set(wanted)) and (not paths or any(matches(one, segments, True) for one in paths))

    def granted(rule):
        methods, paths = rule.get("methods"), rule.get("paths")
        return (not methods or method in methods) and (not paths or any(matches(one, segments, False) for one in paths))

    return outcome(not any(map(denied, denies)) and any(map(granted, grants)), "denied", form)


def forwarded(headers, looks_at):
    """The fields that reach the app. What differs from a name only in `_` or `.` for `-` is that name to many servers."""
    taken = set(HOP) | CLAIMS | UNTRUSTED
    if "paths" in looks_at:
        taken |= PATH_FIELDS
    if "methods" in looks_at:
        taken |= METHOD_FIELDS
    named = {name.strip() for key, value in headers if key == "connection" for name in value.split(",")}
    for key, value in headers:
        plain = re.sub(r"[^a-z0-9]", "-", key)
        if plain in taken or plain.startswith(("starling-", "x-starling-", *UNTRUSTED_PREFIXES)) or key in named:
            continue
        yield key, value
