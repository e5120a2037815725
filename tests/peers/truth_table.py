"""Compares what the agent makes of calls with what the oracle says. Prints one JSON object; any difference is an error.

    truth_table.py judge PROGRAM DIRECTORY   by `starling judge`: a table of all combinations, and random policies
    truth_table.py rules IP:PORT             the [[service]] `orders` of `SHOP`, for a callee whose app is there
    truth_table.py agents PROGRAM SOCKET NAME=IP:PORT …
                                             by agents that run: calls as NAME, and `starling explain`
"""
import itertools
import json
import socket
import subprocess
import sys
from pathlib import Path

import oracle

SHOP = {
    "groups": {"batch": ["billing", "reports"]},
    "mode": None,
    "services": {
        "orders": {
            "protocol": "http",
            "mode": None,
            "allow": ["job"],
            "grants": [
                {"from": ["web"], "methods": ["GET", "POST"], "paths": ["/orders/{id}", "/public/**", "/caf%C3%A9"]},
                {"from": ["group:batch"], "methods": ["GET"], "paths": ["/orders", "/admin/stats"]},
                {"from": ["*"], "paths": ["/health"]},
            ],
            "denies": [
                {"from": ["*"], "paths": ["/admin"]},
                {"from": ["job", "web"], "methods": ["GET"], "paths": ["/orders/secret", "/public/{x}/keys"]},
                {"from": ["guest"]},
            ],
        },
        "verbs": {
            "protocol": "http",
            "mode": "audit",
            "allow": [],
            "grants": [{"from": ["web"], "methods": ["GET"]}],
            "denies": [{"from": ["job"], "methods": ["DELETE"]}],
        },
        "plain": {"protocol": "http", "mode": None, "allow": ["web", "group:batch"], "grants": [], "denies": []},
        "db": {"protocol": "tcp", "mode": None, "allow": ["web", "job"], "grants": [], "denies": [{"from": ["guest"]}]},
    },
    "document": {
        "groups": {"shop": ["orders", "db"]},
        "mode": None,
        "modes": [],
        "grants": [{"services": ["group:shop"], "from": ["mobile"], "paths": ["/public/**"]}],
        "denies": [{"services": ["db"], "from": ["job"], "methods": ["GET"]}],
    },
}

CALLERS = [f"spiffe://mesh.test/svc/{name}" for name in ("web", "job", "billing", "mobile", "guest", "nobody")]
STRANGERS = ["spiffe://mesh.test/node/web", "spiffe://other.test/svc/web"]
METHODS = ["GET", "HEAD", "POST", "DELETE", "get"]

PATHS = [
    "/orders/7", "/orders/7/", "/orders/7/x", "/orders", "/orders/", "/orders/secret", "/orders/secret/", "/orders/%73ecret",
    "/%6Frders/7", "/orders/%37", "/orders/7?x=/../admin", "/orders/7?", "/Orders/7", "/orders//7", "//orders/7",
    "/orders/./7", "/x/../orders/7", "/orders/..", "/orders/%2e%2e/admin", "/orders/.%2E", "/orders%2f7", "/orders%5C7",
    "/orders\\7", "/orders;v=1/7", "/orders/7;jsessionid=1", "/orders/7%3B", "/admin", "/admin/", "/admin?", "/admin?/",
    "/%61dmin", "/%61%64%6D%69%6e/", "/admin/stats", "/admin%20", "/admin%00", "/admin%0d%0a", "/admin%2f", "/admin/.",
    "/admin//", "/./admin", "/public/../admin", "/public/..%2fadmin", "/public/%252e%252e/admin", "/public%2F..%2Fadmin",
    "/%2561dmin", "/%61dmin%3fx", "/admin%23", "/admin%", "/admin%4", "/admin%zz", "/admin%u002f", "/adm%c0%afin",
    "/public", "/public/", "/public/a/b/c", "/publicx", "/public/a/keys", "/public/a/keys/", "/public/%61/%6Beys",
    "/public/..;/admin", "/public/a:b", "/public/a%3ab", "/public/*", "/public/%2A", "/public/a|b^c{d}", "/public/a\"b",
    "/caf%c3%a9", "/café", "/cafe%CC%81", "/caf%c3", "/caf%C3%A9/", "/health", "/health/", "/HEALTH", "/healt%68", "/",
    "/?", "*", "orders/7", "/" + "a" * 8191, "/" + "a" * 8192,
]

HEADERS = [
    [],
    [("x-original-url", "/admin"), ("x_original_url", "/admin"), ("x-rewrite-url", "/admin"), ("accept", "*/*")],
    [("x-http-method-override", "DELETE"), ("x-method-override", "DELETE"), ("x.http.method", "DELETE"), ("x-kept", "1")],
    [("starling-caller", CALLERS[1]), ("starling_caller", CALLERS[1]), ("x-forwarded-client-cert", "URI=" + CALLERS[1]),
     ("x-forwarded-for", "10.0.0.1")],
]


def toml_rule(title, rule):
    keys = [f"{key} = {json.dumps(rule[key], ensure_ascii=False)}" for key in ("services", "from", "methods", "paths") if rule.get(key)]
    return "\n".join([f"[[{title}]]", *keys, ""])


def toml_groups(groups):
    return "".join(["[groups]\n", *(f"{name} = {json.dumps(members)}\n" for name, members in groups.items())])


def toml_service(name, service, app):
    address, port = app.rsplit(":", 1)
    lines = ["[[service]]", f'name = "{name}"', f'address = "{address}"', f"port = {port}", f'protocol = "{service["protocol"]}"',
             f"allow = {json.dumps(service['allow'])}"]
    if service["mode"]:
        lines.append(f'mode = "{service["mode"]}"')
    rules = [toml_rule("service.grant", rule) for rule in service["grants"]]
    rules += [toml_rule("service.deny", rule) for rule in service["denies"]]
    return "\n".join(lines) + "\n" + "".join(rules)


def toml_host(policy):
    mode = f'[policy]\nmode = "{policy["mode"]}"\n' if policy["mode"] else ""
    services = (toml_service(name, service, f"127.0.0.1:{9000 + at}") for at, (name, service) in enumerate(policy["services"].items()))
    return toml_groups(policy["groups"]) + mode + "".join(services)


def toml_document(document):
    mode = f'mode = "{document["mode"]}"\n' if document["mode"] else ""
    modes = (f'[[mode]]\nservices = {json.dumps(one["services"])}\nmode = "{one["mode"]}"\n' for one in document["modes"])
    if mode and document["modes"]:
        mode = f"[[mode]]\n{mode}"
    rules = [toml_rule("grant", rule) for rule in document["grants"]] + [toml_rule("deny", rule) for rule in document["denies"]]
    return mode + "".join(modes) + toml_groups(document["groups"]) + "".join(rules)


def judged(program, directory, policy, cases):
    """What `starling judge` makes of `cases`."""
    host, document = directory / "starling.toml", directory / "base.toml"
    host.write_text(toml_host(policy))
    document.write_text(toml_document(policy["document"]))
    lines = (json.dumps({"caller": caller, "callee": callee, "method": method, "path": path, "headers": headers})
             for caller, callee, method, path, headers in cases)
    done = subprocess.run([program, "judge", "--trust-domain", "mesh.test", "--config", host, "--document", document],
                          input="\n".join(lines), capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr}\n{host.read_text()}\n{document.read_text()}"
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare(program, directory, policy, cases):
    """How many of `cases` are allowed; there is no difference."""
    got = judged(program, directory, policy, cases)
    assert len(got) == len(cases)
    allowed = 0
    for case, one in zip(cases, got):
        caller, callee, method, path, headers = case
        said = oracle.judge(policy, caller, callee, method, path, headers)
        assert one["allowed"] == said.allowed, (case, said, one)
        if said.allowed:
            allowed += 1
            assert (one["why"] == "granted") == said.granted, (case, said, one)
        else:
            assert one["reason"] == said.reason, (case, said, one)
        if said.allowed and method is not None:
            assert one["path"] == said.path, (case, said, one)
            assert sorted(map(tuple, one["headers"])) == sorted(said.headers), (case, said, one)
    return allowed


def table(program, directory):
    """All combinations of what is above."""
    http = ["orders", "verbs", "plain"]
    cases = list(itertools.product(CALLERS + STRANGERS, http, METHODS, PATHS, HEADERS))
    cases += [(caller, "db", None, "", []) for caller in CALLERS + STRANGERS]
    return {"cases": len(cases), "allowed": compare(program, directory, SHOP, cases)}


def random_policies(program, directory):
    """Policies and calls as hypothesis makes them up, the same on every run."""
    import hypothesis
    from hypothesis import strategies as st

    names = ["web", "job", "billing"]
    who = st.lists(st.sampled_from([*names, "group:g", "*"]), min_size=1, max_size=2)
    segment = st.sampled_from(["a", "b", "%41", "é", "{x}", "a.b", ":"])
    pattern = st.builds(lambda parts, end: "/" + "/".join(parts) + end if parts else "/**",
                        st.lists(segment, max_size=3), st.sampled_from(["", "", "/**", "/"]))
    pattern = pattern.map(lambda text: text.replace("//", "/"))

    def rule(requests=True, services=False):
        keys = {"from": who}
        if services:
            keys["services"] = st.lists(st.sampled_from(["orders", "db", "group:g", "*"]), min_size=1, max_size=2)
        extra = {"methods": st.lists(st.sampled_from(["GET", "POST"]), min_size=1, max_size=2),
                 "paths": st.lists(pattern, min_size=1, max_size=2)} if requests else {}
        return st.fixed_dictionaries(keys, optional=extra)

    mode = st.sampled_from([None, None, *oracle.STRICTNESS])

    def service(protocol):
        rules = st.lists(rule(protocol == "http"), max_size=3)
        return st.fixed_dictionaries({"protocol": st.just(protocol), "mode": mode, "allow": st.lists(st.sampled_from(
            [*names, "group:g"]), max_size=1), "grants": rules, "denies": rules})

    groups = st.fixed_dictionaries({"g": st.lists(st.sampled_from([*names, "orders"]), min_size=1, max_size=2)})
    document = st.fixed_dictionaries({
        "groups": groups, "mode": mode,
        "modes": st.lists(st.fixed_dictionaries({"services": st.sampled_from([["orders"], ["*"], ["group:g"]]),
                                                 "mode": st.sampled_from(oracle.STRICTNESS)}), max_size=2),
        "grants": st.lists(rule(services=True), max_size=2), "denies": st.lists(rule(services=True), max_size=2)})
    policy = st.fixed_dictionaries({
        "groups": groups, "mode": mode, "document": document,
        "services": st.fixed_dictionaries({"orders": service("http"), "db": service("tcp")})})
    piece = st.sampled_from(["/", "a", "b", "A", "%61", "%41", "é", "%c3%a9", "%C3", ".", "..", "%2e", ";", "%2F", "\\", ":", "%3a",
                             "%25", "41", "?", "%", "/a", "/b/", " ", "%0a", "a.b", "^"])
    path = st.lists(piece, max_size=6).map(lambda pieces: "/" + "".join(pieces))
    call = st.one_of(
        st.tuples(st.sampled_from(CALLERS[:4] + STRANGERS), st.just("orders"), st.sampled_from(METHODS), path,
                  st.sampled_from(HEADERS)),
        st.tuples(st.sampled_from(CALLERS[:4] + STRANGERS), st.just("db"), st.none(), st.just(""), st.just([])))
    total = {"cases": 0, "allowed": 0}

    @hypothesis.settings(max_examples=100, derandomize=True, deadline=None, database=None,
                         suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(policy, st.lists(call, min_size=20, max_size=40))
    def agree(policy, calls):
        total["allowed"] += compare(program, directory, policy, calls)
        total["cases"] += len(calls)

    agree()
    return total


class Connection:
    """Requests as bytes, one after the other."""

    def __init__(self, address):
        self.address, self.file = address, None

    def ask(self, method, path, headers):
        """Status, reason of the mesh, and the head that the app got."""
        if self.file is None:
            host, port = self.address.rsplit(":", 1)
            self.socket = socket.create_connection((host, int(port)), timeout=60)
            self.file = self.socket.makefile("rb")
        fields = "".join(f"{key}: {value}\r\n" for key, value in headers)
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\nhost: orders\r\n{fields}\r\n".encode())
        head = {}
        status = int(self.file.readline().split()[1])
        while (line := self.file.readline().strip()) != b"":
            key, value = line.decode().split(": ", 1)
            head[key.lower()] = value
        length = 0 if method == "HEAD" else int(head.get("content-length", 0))
        body = self.file.read(length).decode()
        if head.get("connection") == "close":
            self.file = None
        return status, head.get("starling-error"), body


def explain(program, admin, question):
    """The exit code of `starling explain`. A callee too busy to answer in time is asked again."""
    for _ in range(5):
        code = subprocess.run([program, "explain", "--socket", admin, *question], stdout=subprocess.DEVNULL).returncode
        if code != 1:
            break
    return code


def agents(program, admin, callers):
    """Calls through agents to `orders`; explain is asked for some of them."""
    policy = {**SHOP, "document": None}
    counts = {"cases": 0, "allowed": 0, "explained": 0}
    for name, address in callers:
        connection, caller = Connection(address), f"spiffe://mesh.test/svc/{name}"
        for at, (method, path) in enumerate(itertools.product(["GET", "POST", "DELETE"], [*PATHS, "/admin#x", "/public#/../admin"])):
            headers = HEADERS[at % 3]
            said = oracle.judge(policy, caller, "orders", method, path, headers)
            status, reason, body = connection.ask(method, path, headers)
            case = (name, method, path, status, reason, body, said)
            counts["cases"] += 1
            if status == 200:
                line, *fields = body.splitlines()
                verb, target, _ = line.split(" ")
                # Whatever became of it on the way: what the app got is what is allowed.
                again = oracle.judge(policy, caller, "orders", verb, target)
                assert again.allowed and again.path == target, case
                fields = dict(field.split(": ", 1) for field in fields if field)
                assert fields["starling-caller"] == caller, case
                assert all(fields.get(key) == value for key, value in said.headers), case
                names = {field.replace("_", "-").replace(".", "-") for field in fields}
                assert not names & (oracle.PATH_FIELDS | oracle.METHOD_FIELDS), case
                counts["allowed"] += 1
            if "#" in path or said.reason == "bad-request" or not path.startswith("/"):
                continue
            assert (status == 200) == said.allowed, case
            if said.allowed:
                assert target == said.path, case
            else:
                assert reason == said.reason, case
            if at % 41 == 0:
                assert explain(program, admin, [name, "orders", method, path]) == (0 if status == 200 else 3), case
                counts["explained"] += 1
    return counts


def main():
    what, *args = sys.argv[1:]
    if what == "rules":
        print(toml_service("orders", SHOP["services"]["orders"], args[0]))
        return
    if what == "judge":
        program, directory = args[0], Path(args[1])
        outcome = {"table": table(program, directory), "random": random_policies(program, directory)}
    else:
        outcome = agents(args[0], args[1], [caller.split("=") for caller in args[2:]])
    print(json.dumps(outcome))


main()
