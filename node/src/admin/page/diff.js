// What changed between two texts, line by line. Pure.

// Past this many pairs of lines everything is shown as replaced: a document has a few hundred lines at most.
const PAIRS = 4_000_000;

// A list of ['same' | 'old' | 'new', line].
export function diff(before, after) {
  const [a, b] = [split(before), split(after)];
  if (a.length * b.length > PAIRS) return [...a.map(line => ['old', line]), ...b.map(line => ['new', line])];
  // The longest common part of what follows each pair of lines.
  const width = b.length + 1;
  const common = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      common[i * width + j] = a[i] === b[j]
        ? common[(i + 1) * width + j + 1] + 1
        : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
    }
  }
  const lines = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      lines.push(['same', a[i]]);
      i++;
      j++;
    } else if (j === b.length || i < a.length && common[(i + 1) * width + j] >= common[i * width + j + 1]) {
      lines.push(['old', a[i++]]);
    } else {
      lines.push(['new', b[j++]]);
    }
  }
  return lines;
}

const split = text => text === '' ? [] : text.replace(/\n$/, '').split('\n');
