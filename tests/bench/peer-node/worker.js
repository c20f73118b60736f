import amqp from 'amqplib';
import { Agent, fetch, request, setGlobalDispatcher } from 'undici';
import { env, QUEUE, AMQP_URL, uuidv7 } from './common.js';
import { openPlaylists } from './pdb.js';
setGlobalDispatcher(new Agent({ keepAliveTimeout: 30000, connections: 4 }));
const API = env('EXTERNAL_API_URL', 'http://127.0.0.1:5901/generate_playlist'), SOIREES = env('SOIREES_URL', 'http://127.0.0.1:3103');
const RETRY = +env('RETRY_DELAY_MS', 10000), MAX = 3;
// HTTP_CLIENT=request, variant: undici's leaner call in place of fetch
const call = env('HTTP_CLIENT', 'fetch') === 'fetch' ? fetch : async (url, options) => {
  const { statusCode: status, body } = await request(url, options);
  return { status, ok: status >= 200 && status < 300, body: { cancel: () => body.dump() }, json: () => body.json(), arrayBuffer: () => body.arrayBuffer() };
};
const db = openPlaylists(); const bySoiree = db.prepare('SELECT id FROM playlists WHERE soireeId=?');
const ins = db.prepare('INSERT INTO playlists VALUES(@id,@nom,@stylesMusicaux,@description,@tracks,@soireeId,@createdAt) ON CONFLICT(soireeId) DO NOTHING');
const sleep = ms => new Promise(r => setTimeout(r, ms));
async function generate(style) {
  for (let i = 0; i < MAX; i++) {
    try { const r = await call(API, { signal: AbortSignal.timeout(90000) }); if (!r.ok) { await r.body?.cancel(); throw new Error('' + r.status); } return await r.json(); }
    catch { if (i < MAX - 1) await sleep(RETRY); }
  }
  return { style, title: `${style[0].toUpperCase()}${style.slice(1)} Mix - Default`, tracks: ['Vibes', 'Energy', 'Dreams'].map((x, i) => `Track ${i + 1} - ${style} ${x}`) };
}
async function handle(m) {
  const { soireeId, style } = JSON.parse(m.content.toString());
  let id = bySoiree.get(soireeId)?.id;                      // redelivery: the playlist may exist already
  if (!id) {
    const p = await generate(style); id = uuidv7();
    ins.run({ id, nom: p.title, stylesMusicaux: JSON.stringify([p.style]), description: `Playlist générée automatiquement pour la soirée ${soireeId}`, tracks: JSON.stringify(p.tracks), soireeId, createdAt: new Date().toISOString() });
  }
  const r = await call(`${SOIREES}/api/soirees/${soireeId}`, { method: 'PATCH', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ playlistId: id }) });
  await r.arrayBuffer();
  if (!r.ok && r.status !== 404) throw new Error('PATCH ' + r.status);
}
async function start() {
  try {
    const c = await amqp.connect(AMQP_URL, { noDelay: true }); c.on('error', () => {}); c.on('close', () => setTimeout(start, 1000));
    const ch = await c.createChannel(); ch.on('error', () => {});
    await ch.assertQueue(QUEUE, { durable: true }); await ch.prefetch(+env('PREFETCH', 1));
    await ch.consume(QUEUE, async m => { if (!m) return; try { await handle(m); ch.ack(m); } catch (e) { await sleep(1000); try { ch.nack(m, false, true); } catch {} } });
    console.log('worker ready');
  } catch { setTimeout(start, 1000); }
}
for (const s of ['SIGTERM', 'SIGINT']) process.on(s, () => process.exit(0));
start();
