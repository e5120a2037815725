// Calls of a longer time than the stream tells of: the agent is asked, and again while somebody looks.

const AGAIN_MS = 10_000;

let held = { window: undefined };

// What the mesh tells of `window`, such as `10m`: `{edges, gaps}`, or `{problem}`; nothing before the first answer.
// `on_news` is called when there is more.
export function past(window, on_news) {
  if (held.window !== window) held = { window };
  const now = Date.now();
  if (!held.is_asking && now - (held.asked ?? 0) >= AGAIN_MS) ask(held, now, on_news);
  return held.told;
}

async function ask(mine, now, on_news) {
  Object.assign(mine, { is_asking: true, asked: now });
  mine.told = await answered(mine.window);
  mine.is_asking = false;
  if (mine === held) on_news();
}

async function answered(window) {
  try {
    const response = await fetch(`/v1/edges?window=${window}`);
    return response.ok ? await response.json() : { problem: (await response.text()).trim() };
  } catch {
    return { problem: 'The agent does not answer.' };
  }
}
