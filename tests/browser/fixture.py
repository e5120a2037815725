"""A mesh that is not there: what an agent would tell of 250 nodes, 200 services and 2,000 instances.

Everything is drawn from a fixed seed, so that pictures can be compared.
"""

import random

NODES, SERVICES, INSTANCES, TIERS = 250, 200, 2000, 6
ZONES = ["east-1", "east-2", "west-1"]
WORDS = ["orders", "stock", "cart", "billing", "search", "users", "mail", "prices", "reviews", "offers", "media", "audit",
         "shipping", "ledger", "tax", "fraud", "login", "profile", "coupons", "returns"]
# The longest name that there may be: 63 characters.
LONG = "inventory-reconciliation-and-warehouse-replenishment-forecast-x"
WINDOW_S = 60


class Mesh:
    def __init__(self, seed=1):
        self.random = random.Random(seed)
        self.nodes = [f"node-{number:03}" for number in range(1, NODES + 1)]
        self.services = self.named()
        self.places = self.placed()
        self.edges = self.called()

    def named(self):
        """Services by tier: the first is called from outside, the last are stores."""
        names = [f"{WORDS[i % len(WORDS)]}-{i // len(WORDS) + 1}" for i in range(SERVICES)]
        names[7] = LONG
        return names

    def placed(self):
        """Where instances run: ten of each service on average, a few services with many."""
        places = {name: set(self.random.sample(self.nodes, 4)) for name in self.services}
        while sum(map(len, places.values())) < INSTANCES:
            name = self.services[int(self.random.triangular(0, SERVICES, 0))]
            places[name].add(self.random.choice(self.nodes))
        return {name: sorted(nodes) for name, nodes in places.items()}

    def tier(self, number):
        return number * TIERS // SERVICES

    def called(self):
        """Each service calls a few of the next tiers, and one pair calls each other."""
        edges = set()
        for number, caller in enumerate(self.services):
            below = [other for other in range(SERVICES) if 0 < self.tier(other) - self.tier(number) <= 2]
            for other in self.random.sample(below, min(3, len(below))):
                edges.add((caller, self.services[other]))
        edges.add((self.services[80], self.services[3]))
        return sorted(edges)

    def whole(self):
        """The first message of the stream."""
        items = [["status", "", 0, self.status()]]
        items += [["node", name, 0, self.node(number, name)] for number, name in enumerate(self.nodes)]
        items += [["service", name, 0, self.service(name)] for name in self.services]
        items += [["edge", f"{caller}>{callee} http", 0, self.edge(caller, callee)] for caller, callee in self.edges]
        items += [["document", f"policy/{name}", 0, self.document(name)] for name in ("base", "orders", "on-call")]
        items += [["route", self.services[0], 0, self.route()]]
        return {"whole": True, "set": items, "gone": []}

    def change(self):
        """A second in which everything changed a little."""
        items = [["service", name, 0, self.service(name)] for name in self.services]
        items += [["edge", f"{caller}>{callee} http", 0, self.edge(caller, callee)] for caller, callee in self.edges]
        return {"whole": False, "set": items, "gone": []}

    def status(self):
        return {
            "node": self.nodes[0], "identity": f"spiffe://example.org/node/{self.nodes[0]}", "trust_domain": "example.org",
            "version": "0.1.0", "uptime_s": 260_000, "state": "serving", "listen": "0.0.0.0:7400",
            "advertise": "10.0.0.1:7400", "zone": ZONES[0],
            "svids": [{"identity": f"spiffe://example.org/node/{self.nodes[0]}", "seconds_left": 51_000},
                      {"identity": f"spiffe://example.org/svc/{self.services[0]}", "seconds_left": 2_000}],
            "issuer": {"join": "0.0.0.0:7402", "seconds_left": 30_000_000},
            "gossip": {"alive": NODES - 2, "suspect": 1, "dead": 1},
            "documents": {"count": 3, "newest_age_s": 4_000, "forks": 1, "not_in_force": 1, "same_nodes": NODES - 3},
            "services": [{"service": self.services[0], "protocol": "http", "address": "127.0.0.1:8080", "allow": ["edge"],
                          "mode": "audit", "healthy": True, "declared": "/etc/starling/services.d/orders.toml:1"}],
            "upstreams": [{"service": callee, "listen": f"127.0.0.1:{9001 + i}", "caller": caller, "protocol": "http",
                           "usable": 9, "instances": 10, "declared": f"/etc/starling/starling.toml:{i + 3}"}
                          for i, (caller, callee) in enumerate(self.edges[:4])],
            "plaintext": [{"service": self.services[0], "address": "10.0.3.77", "connections": 12, "age_s": 300}],
            "config": {"directory": "/etc/starling", "age_s": 9_000},
        }

    def node(self, number, name):
        runs = [service for service, nodes in self.places.items() if name in nodes]
        liveness = {3: "dead", 9: "suspect"}.get(number, "alive")
        return {
            "node": name, "identity": f"spiffe://example.org/node/{name}", "state": "draining" if number == 20 else "serving",
            "liveness": liveness, "addresses": [f"10.0.{number // 250}.{number % 250 + 1}:7400"],
            "zone": ZONES[number % len(ZONES)], "services": runs,
            "calls": sorted({callee for caller, callee in self.edges if caller in runs})[:12],
            "age_s": self.random.randrange(300), "liveness_s": self.random.randrange(90_000),
            "seconds_left": -90 if number == 3 else self.random.randrange(3_000, 86_400), "is_issuer": number < 2,
            "has_same_documents": number not in (3, 9, 41), "is_self": number == 0,
        }

    def service(self, name):
        return {"service": name, "instances": [self.instance(name, node) for node in self.places[name]]}

    def instance(self, service, node):
        number = self.nodes.index(node)
        one = {
            "node": node, "protocol": "http", "labels": {"version": f"v{number % 3 + 1}"}, "weight": 0 if number == 20 else 100,
            "healthy": (number + len(service)) % 97 != 0, "liveness": "suspect" if number == 9 else "alive",
            "address": f"10.0.{number // 250}.{number % 250 + 1}:7400", "zone": ZONES[number % len(ZONES)],
            "in_flight": self.random.randrange(9), "latency_us": self.random.randrange(900, 9_000),
            "age_s": self.random.randrange(90_000),
        }
        return one | ({"ejected_s": 21} if number == 33 else {})

    def edge(self, caller, callee):
        number = self.services.index(callee)
        calls = self.random.randrange(40, 400) * (1 + number % 7) ** 2
        slow, ill = number % 41 == 5, number % 29 == 4
        failed = calls // 12 if ill else calls // 2_000
        denied = calls // 9 if number % 53 == 8 else 0
        signals = {
            "calls": calls, "failed": failed, "denied": denied, "rate": calls / WINDOW_S,
            "p50_us": 900 + number * 31, "p90_us": 3_000 + number * 60,
            "p99_us": (2_400_000 if slow else 9_000) + number * 150 + self.random.randrange(900), "error": 0.01,
            "bytes_in": calls * 300, "bytes_out": calls * 2_100, "open": self.random.randrange(30),
            "reasons": ({"no_instance": failed // 2, "timeout": failed - failed // 2} if ill else {}) | ({"denied": denied} if denied else {}),
        }
        ends = [{"node": node, "side": side, "zone": ZONES[self.nodes.index(node) % 3], "age_s": 1, "source": "asked", "signals": signals}
                for side, service in (("caller", caller), ("callee", callee)) for node in self.places[service][:4]]
        if number % 37 == 6:
            ends[0] |= {"source": "gossip", "age_s": 95, "note": "node-004 does not answer"}
        return {"caller": caller, "callee": callee, "protocol": "http", "window_s": WINDOW_S, "ends": ends,
                "caller_side": signals, "callee_side": signals}

    def document(self, name):
        states = {"base": "in force", "orders": "held back", "on-call": "in force"}
        return {"kind": "policy", "name": name, "revision": 7, "operator": "alice", "age_s": 4_000, "state": states[name],
                "in_force": 6 if name == "orders" else 7, **({"why": "the agent ended while it was new"} if name == "orders" else {}),
                **({"fork": "bob"} if name == "on-call" else {})}

    def history(self, name):
        bodies = ["mode = \"audit\"\n", "mode = \"audit\"\n\n[[allow]]\nservices = [\"orders-1\"]\nfrom = [\"cart-1\"]\n",
                  "mode = \"enforce\"\n\n[[allow]]\nservices = [\"orders-1\"]\nfrom = [\"cart-1\", \"search-2\"]\npaths = [\"/orders/**\"]\n"]
        revisions = [{"revision": number + 5, "operator": "alice", "public_key": "ed25519:9f3c1a", "age_s": 4_000 + (2 - number) * 90_000,
                      "deleted": False, "lost": False, "hash": f"{number}f" * 32, "body": body} for number, body in enumerate(bodies)]
        return {"document": self.document(name), "revisions": revisions[::-1]}

    def policy(self, service):
        rules = [{"effect": "deny", "from": ["*"], "methods": ["DELETE"], "paths": ["/orders/**"], "declared": "policy/base@7#9"},
                 {"effect": "allow", "from": ["cart-1", "search-2"], "methods": [], "paths": [], "declared": "/etc/starling/services.d/orders.toml:5"},
                 {"effect": "allow", "from": ["mail-3"], "methods": [], "paths": [], "declared": "policy/orders@4#9", "only_with": ["policy/orders@5"], "more_only_with": 0}]
        through = [{"caller": "mail-3", "why": "no-grant", "calls": 1_204, "age_s": 3}, {"caller": "cart-1", "why": "denied", "rule": "policy/base@7#9", "calls": 2, "age_s": 900}]
        told = {"mode": "audit", "mode_declared": "policy/base@7#1", "rules": rules, "let_through": through}
        nodes = self.places[service]
        return [{"node": node, "policy": told} for node in nodes[:-1]] + [{"node": nodes[-1], "problem": f"node `{nodes[-1]}` did not answer within 5s"}]

    def route(self):
        any_of = {"subset": "version=v1", "percent": 90.0, "instances": 9, "is_usable": True}
        beta = {"subset": "version=v2", "percent": 10.0, "instances": 3, "is_usable": True}
        return {"service": self.services[0], "origin": "document", "declared": "route/orders@2#1", "warnings": [], "rules": [
            {"rule": "rule \"beta\"", "matches": "header x-beta is 1", "action": "goes on", "targets": [beta | {"percent": 100.0}], "declared": "route/orders@2#3"},
            {"rule": "rule 2", "matches": "every call", "action": "goes on", "targets": [any_of, beta], "declared": "route/orders@2#9"}]}

    def past(self):
        return {"window_s": 3600, "edges": [self.edge(caller, callee) for caller, callee in self.edges],
                "gaps": [{"node": "node-004", "why": "it is dead", "age_s": 95}]}

    pass_ = "starling-pass.fixture"

    def tap(self):
        yield {"kind": "nodes", "unasked": 0, "nodes": [{"node": "node-001", "state": "answers"}, {"node": "node-004", "state": "silent", "why": "no answer within 5s"}]}
        for number in range(700):
            denied, slow = number % 9 == 0, number % 40 == 0
            yield {"kind": "call", "node": "node-001", "at_ms": 1_790_000_000_000 + number * 37, "side": "callee", "caller": "cart-1", "callee": "audit-3",
                   "instance": "node-001", "protocol": "http", "method": "GET", "path": f"/audit/{number}/" + "long/" * (number % 5), "bytes_in": 0, "bytes_out": 91,
                   "status": 403 if denied else 503 if slow else 200, **({"reason": "denied", "rule": "policy/base@7#9"} if denied else {}),
                   "duration_us": 400_000 if slow else 900 + number, "trace_id": f"{number:032x}", "headers": [{"name": "x-beta", "value": "1"}, {"name": "cookie", "value": None}]}
        yield {"kind": "missing", "node": "node-001", "left_out": 120, "lost": 3}

    def explain(self, question):
        nodes = self.places[question["callee"]]
        verdict = {"caller": f"spiffe://example.org/svc/{question['caller']}", "allowed": True, "why": "granted", "text": "a grant allows it",
                   "rule": "/etc/starling/services.d/orders.toml:5", "mode": "audit", "mode_declared": "policy/base@7#1"}
        judged = [{"node": node, "used": i < 3, "because": "healthy" if i < 3 else "its node is suspect", "verdict": verdict} for i, node in enumerate(nodes)]
        judged[-1] = {"node": nodes[-1], "used": False, "because": "its node is suspect", "problem": f"node `{nodes[-1]}` did not answer within 5s"}
        return {"node": self.nodes[0], "question": question, "limits": [], "instances": judged}
