// The service that this page came from. What it refuses, and what fails on the way, is a Refusal, in words for people.

export class Refusal extends Error {
  /** message: a sentence; title: what it is about; field: the form's field to blame, if there is one. */
  constructor(message, { title = 'That did not work.', field = null } = {}) {
    super(message);
    this.title = title;
    this.field = field;
  }
}

/** GET some JSON; while the service warms up, ask again and tell `onWait`. */
export async function read(path, { onWait } = {}) {
  for (;;) {
    const response = await send(path);
    if (response.ok) return response.json();
    const refusal = await refusalOf(response);
    if (refusal.code !== 'not_ready') throw refusal.error;
    onWait?.();
    await new Promise((resolve) => setTimeout(resolve, 1000 * (Number(response.headers.get('Retry-After')) || 2)));
  }
}

/** POST /animate: {blob, name}. `onProgress` is told of bytes received so far, once they come. */
export async function animate(fields, { signal, onProgress }) {
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) body.set(name, value);
  const response = await send('animate', { method: 'POST', body, signal });
  if (!response.ok) throw (await refusalOf(response)).error;
  const chunks = [];
  let received = 0;
  const reader = response.body.getReader();
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      chunks.push(part.value);
      onProgress((received += part.value.length));
    }
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Refusal('The service stopped in the middle, so that nothing whole arrived. Try again.', {
      title: 'The animation was cut off.',
    });
  }
  const type = response.headers.get('Content-Type');
  return { blob: new Blob(chunks, { type }), name: nameOf(response.headers.get('Content-Disposition')) };
}

/** POST /templates: the card of the head that a file holds. */
export async function register(mesh, name) {
  const body = new FormData();
  body.set('mesh', mesh);
  body.set('name', name);
  const response = await send('templates', { method: 'POST', body });
  if (!response.ok) throw (await refusalOf(response)).error;
  return response.json();
}

async function send(path, options = {}) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Refusal('It may have been stopped, or the network may be down. Try again.', {
      title: 'The service does not answer.',
    });
  }
}

/** What an answer that is not 2xx says: {error, code}. */
async function refusalOf(response) {
  const type = response.headers.get('Content-Type') ?? '';
  if (!type.startsWith('application/problem+json')) {
    return { error: new Refusal(`The answer was ${response.status} ${response.statusText}, from a proxy perhaps.`) };
  }
  const { title, detail, code, field, request_id } = await response.json();
  const quote = response.status >= 500 && code === 'internal' ? ` (request ${request_id})` : '';
  return { error: new Refusal(capital(detail) + quote, { title: `${title}.`, field }), code };
}

function capital(text) {
  return text && text[0].toUpperCase() + text.slice(1).replace(/([^.!?])$/, '$1.');
}

/** The file's name in a Content-Disposition. */
function nameOf(disposition) {
  const [, encoded, plain] = /filename\*=utf-8''([^;]+)|filename="([^"]+)"/i.exec(disposition ?? '') ?? [];
  return encoded ? decodeURIComponent(encoded) : (plain ?? 'talker');
}
