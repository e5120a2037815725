// Server-sent events of a request that brings a field of its own, which EventSource cannot.

// Calls `on_message` with each message as it comes. Ends when the agent ends it; throws what the agent refuses it with.
export async function follow(address, headers, signal, on_message) {
  const response = await fetch(address, { headers, signal, cache: 'no-store' });
  if (!response.ok) throw new Refused(await refusal(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      const data = line.startsWith('data: ') && JSON.parse(line.slice('data: '.length));
      if (data?.kind) on_message(data);
    }
  }
}

export class Refused extends Error {}

// What the agent said when it refused.
export async function refusal(response) {
  const text = await response.text();
  try {
    const { error, hint } = JSON.parse(text);
    return [error, hint].filter(Boolean).join('. ');
  } catch {
    return text.trim();
  }
}
