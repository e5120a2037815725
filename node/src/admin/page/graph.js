// Who calls whom, of all that the agent tells: services that run, services that only call, and calls between them.

import { standing, sum } from './signals.js';
import { usable, whole, zones } from './words.js';

// Callers that come to a plaintext address; no service has a name like this.
export const OUTSIDE = 'without the mesh';

// What callees call those whom their rules do not name.
export const OTHER = 'other';

// The edges of the last minute.
export const edges_of = live => told_once(live.all('edge').map(([, edge]) => edge));

// What a callee saw of callers that it cannot name is left out where those callers tell of the same calls themselves.
export function told_once(edges) {
  const unseen = new Map();
  for (const { callee, caller_side, callee_side } of edges) {
    if (caller_side && !callee_side) unseen.set(callee, (unseen.get(callee) ?? 0) + caller_side.calls);
  }
  const is_told = ({ caller, callee, callee_side }) =>
    caller === OTHER && callee_side && unseen.has(callee) && callee_side.calls <= unseen.get(callee) * SLACK + SLACK_CALLS;
  return edges.filter(edge => !is_told(edge));
}

// Callers and callees are asked at different times.
const SLACK = 1.25;
const SLACK_CALLS = 10;

// `{services: Map of name → service, edges: Map of "caller>callee" → edge}`, of what the agent told and of `told` edges.
export function graph(live, told) {
  const services = new Map();
  const at = name => {
    if (!services.has(name)) services.set(name, { name, instances: [], usable: 0, zones: [], edges: [] });
    return services.get(name);
  };
  for (const [name, service] of live.all('service')) {
    Object.assign(at(name), { instances: service.instances, usable: usable(service), zones: zones(service.instances) });
  }
  const edges = new Map();
  const between = (caller, callee) => {
    const key = `${caller}>${callee}`;
    if (!edges.has(key)) edges.set(key, { key, caller: at(caller), callee: at(callee), parts: [] });
    return edges.get(key);
  };
  for (const edge of told) between(edge.caller, edge.callee).parts.push(edge);
  // Declared here, though nothing called lately.
  for (const { caller, service } of live.status?.upstreams ?? []) between(caller, service);
  for (const { service } of live.status?.plaintext ?? []) between(OUTSIDE, service).is_plaintext = true;
  for (const edge of edges.values()) {
    edge.signals = sum(edge.parts);
    edge.state = edge.is_plaintext ? 'warn' : worst(edge.parts.map(standing));
    edge.callee.edges.push(edge);
  }
  for (const service of services.values()) {
    service.signals = sum(service.edges.flatMap(edge => edge.parts));
    [service.mark, service.state] = service.instances.length ? whole(service.usable, service.instances.length) : ['', 'off'];
  }
  return { services, edges };
}

const worst = states => ['bad', 'warn', 'good'].find(state => states.includes(state)) ?? 'off';

// What the agent told of calls to and from one service.
export const calls_of = (live, name) => {
  const edges = edges_of(live);
  return { to: edges.filter(edge => edge.callee === name), from: edges.filter(edge => edge.caller === name) };
};
