// Skin that folds: the neutral texture times exp(log ratio), where the log ratio of a frame is a weighted sum of at
// most eight images (docs/formats.md, "The wrinkle basis"):
//
//     log ratio = Σₖ weight[k] · (scale[k] · texel[k] + offset[k]),    texel in 0..1

import { CanvasTexture, LinearInterpolant, LinearMipmapLinearFilter, NoColorSpace } from 'three';

const MAX_SIZE = 2048; // eight images and the neutral one then take some 200 MB of the GPU, not 3 GB as at 8192
const ANISOTROPY = 8;

/** A material that shows wrinkles; depth 0 is the neutral skin, 1 the clip's own. */
export async function makeSkin(neutral, { images, scale, offset, weights, fps }) {
  const material = neutral.clone();
  const textures = [];
  for (const image of images) textures.push(await textureOf(image)); // in turn: at 8192 each takes 256 MB meanwhile
  const uniforms = {
    wrinkles: { value: textures },
    gains: { value: images.map(() => 0) },
    shift: { value: 0 },
  };
  const times = weights.map((_, frame) => frame / fps);
  const curve = new LinearInterpolant(times, weights.flat(), images.length, new Float32Array(images.length));
  material.onBeforeCompile = (shader) => {
    Object.assign(shader.uniforms, uniforms);
    shader.fragmentShader = foldShader(shader.fragmentShader, images.length);
  };
  material.customProgramCacheKey = () => `wrinkles-${images.length}`;
  return {
    material,
    depth: 1,
    show(time_s) {
      const now = curve.evaluate(time_s);
      uniforms.gains.value = scale.map((each, k) => this.depth * now[k] * each);
      uniforms.shift.value = offset.reduce((sum, each, k) => sum + this.depth * now[k] * each, 0);
    },
    dispose() {
      textures.forEach((texture) => texture.dispose());
    },
  };
}

/** three's fragment shader with wrinkles in place of the plain map. Ratios are of sRGB values, the map is linear. */
function foldShader(source, count) {
  const terms = Array.from({ length: count }, (_, k) => `gains[${k}] * texture2D(wrinkles[${k}], vMapUv).rgb`);
  const replaced = source.replace(
    '#include <map_fragment>',
    /* glsl */ `
    vec4 neutral = texture2D(map, vMapUv);
    vec3 logRatio = shift + ${terms.join(' + ')};
    vec3 folded = clamp(sRGBTransferOETF(neutral).rgb * exp(logRatio), 0.0, 1.0);
    diffuseColor *= sRGBTransferEOTF(vec4(folded, neutral.a));
  `,
  );
  if (replaced === source) throw new Error('this three.js has no map_fragment to put wrinkles into');
  return `uniform sampler2D wrinkles[${count}]; uniform float gains[${count}]; uniform float shift;\n${replaced}`;
}

/** One image of the basis: numbers, not colours. Row 0 is at v = 1, which glTF counts from the top. */
async function textureOf(blob) {
  const texture = new CanvasTexture(await fit(await createImageBitmap(blob, { colorSpaceConversion: 'none' })));
  texture.colorSpace = NoColorSpace;
  texture.flipY = false;
  texture.minFilter = LinearMipmapLinearFilter;
  return sharpen(texture);
}

/** Keep a texture readable where the surface turns away, and small enough for the GPU. */
export async function prepare(map) {
  map.image = await fit(map.image);
  map.needsUpdate = true;
  return sharpen(map);
}

function sharpen(texture) {
  texture.anisotropy = ANISOTROPY;
  return texture;
}

/** The image, or a smaller copy of one that is too large for its purpose here. */
async function fit(bitmap) {
  if (bitmap.width <= MAX_SIZE) return bitmap;
  const smaller = await createImageBitmap(bitmap, { resizeWidth: MAX_SIZE, resizeQuality: 'high' });
  bitmap.close();
  return smaller;
}
