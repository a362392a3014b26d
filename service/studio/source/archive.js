// Zips, as far as a bundle needs them: entries stored or deflated, without encryption, below 4 GiB.

const END = 0x06054b50;
const ENTRY = 0x02014b50;
const END_BYTES = 22;
const STORED = 0;
const DEFLATED = 8;

/** The members of a zip as Blobs, by name. Throws an Error where it is not whole, or uses what is not read here. */
export async function unzip(blob) {
  const view = new DataView(await blob.arrayBuffer());
  const end = findEnd(view);
  const members = new Map();
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    if (at + 46 > end || view.getUint32(at, true) !== ENTRY)
      throw new Error('the zip is damaged: its directory ends early');
    const [nameBytes, extraBytes, commentBytes] = [28, 30, 32].map((field) => view.getUint16(at + field, true));
    const name = new TextDecoder().decode(new Uint8Array(view.buffer, at + 46, nameBytes));
    members.set(name, await memberOf(blob, view, at, name));
    at += 46 + nameBytes + extraBytes + commentBytes;
  }
  return members;
}

/** Where the end record lies: the last one, as a comment may follow it. */
function findEnd(view) {
  for (let at = view.byteLength - END_BYTES; at >= 0; at--) {
    if (view.getUint32(at, true) === END) return at;
  }
  throw new Error('the zip is cut off: it has no directory');
}

/** One member as a Blob; its local header, which repeats the name, comes before it. */
async function memberOf(blob, view, at, name) {
  const method = view.getUint16(at + 10, true);
  const header = view.getUint32(at + 42, true);
  const start = header + 30 + view.getUint16(header + 26, true) + view.getUint16(header + 28, true);
  const packed = blob.slice(start, start + view.getUint32(at + 20, true));
  if (method === STORED) return packed;
  if (method !== DEFLATED)
    throw new Error(`${name} in the zip is packed by method ${method}; wanted stored or deflated`);
  return new Response(packed.stream().pipeThrough(new DecompressionStream('deflate-raw'))).blob();
}
