// What the service made, opened: an animated GLB, or a bundle (docs/formats.md).

import { BufferAttribute, LinearInterpolant, Mesh } from 'three';
import { GLTFLoader } from 'three/addons/loaders/GLTFLoader.js';

import { unzip } from './archive.js';
import { makeSkin, prepare } from './skin.js';

/**
 * Open a GLB or a bundle. mesh: the head, whose materials are a list; show(time_s): put it into the pose of a time;
 * skin: null where there are no wrinkles; facts: what the file says of itself.
 */
export async function openClip(blob) {
  const parts = await unpack(blob);
  const gltf = await new GLTFLoader().parseAsync(await parts.glb.arrayBuffer(), '');
  const mesh = meshOf(gltf.scene);
  const textured = mesh.material.findIndex((material) => material.map);
  if (textured >= 0) await prepare(mesh.material[textured].map);
  const extras = gltf.asset.extras ?? {};
  const wrinkles = parts.wrinkles ?? (extras.wrinkles && (await wrinklesWithin(gltf, extras.wrinkles)));
  const skin = wrinkles?.images.length ? await makeSkin(mesh.material[textured], wrinkles) : null;
  if (skin) mesh.material[textured] = skin.material;
  const pose = poseOf(gltf.animations, mesh);
  return {
    mesh,
    skin,
    fps: extras.fps ?? null,
    frames: extras.frames ?? 1,
    facts: { targets: pose.targets, error_mm: extras.max_error_mm, psnr_db: wrinkles?.psnr_db },
    show(time_s) {
      pose.show(time_s);
      skin?.show(time_s);
    },
  };
}

/** {glb, wrinkles}: a bundle's members, or the file itself. Which it is, its first bytes say. */
async function unpack(blob) {
  const magic = new TextDecoder().decode(await blob.slice(0, 4).arrayBuffer());
  if (magic === 'glTF') return { glb: blob, wrinkles: null };
  const members = await unzip(blob);
  const take = (name) => members.get(name) ?? fail(`the bundle lacks ${name}`);
  const fields = JSON.parse(await take('weights.json').text());
  return { glb: take('animation.glb'), wrinkles: { ...fields, images: fields.textures.map(take) } };
}

function fail(message) {
  throw new Error(message);
}

/** The basis that `glb` carries within: images that no material uses. */
async function wrinklesWithin({ parser }, fields) {
  const images = fields.images.map(async (index) => {
    const { bufferView, mimeType } = parser.json.images[index];
    return new Blob([await parser.getDependency('bufferView', bufferView)], { type: mimeType });
  });
  return { ...fields, images: await Promise.all(images) };
}

/**
 * The head as one mesh with a list of materials. A file has a primitive for each, and three makes meshes of them, which
 * share their vertices and targets: as groups of one geometry these are on the GPU once, and take one pose.
 */
function meshOf(scene) {
  const meshes = [];
  scene.traverse((node) => node.isMesh && meshes.push(node));
  if (!meshes.length) fail('the GLB has no mesh');
  const { geometry } = meshes[0];
  const parts = meshes.map((each) => each.geometry.index);
  const index = new (parts[0].array.constructor)(parts.reduce((sum, part) => sum + part.count, 0));
  let start = 0;
  for (const [material, part] of parts.entries()) {
    index.set(part.array, start);
    geometry.addGroup(start, part.count, material);
    start += part.count;
  }
  geometry.setIndex(new BufferAttribute(index, 1));
  return new Mesh(
    geometry,
    meshes.map((each) => each.material),
  );
}

/** Morph weights by time: the animation's own samples, linear in between, as the file says. */
function poseOf([animation], mesh) {
  const track = animation?.tracks[0];
  if (!track) return { targets: 0, show() {} };
  const targets = track.getValueSize();
  const curve = new LinearInterpolant(track.times, track.values, targets, mesh.morphTargetInfluences);
  return { targets, show: (time_s) => curve.evaluate(time_s) };
}
