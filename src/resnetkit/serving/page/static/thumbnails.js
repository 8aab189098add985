/**
 * Small pictures of photos, drawn one after another so that a hundred large photos fit into memory.
 */

const SIDE = 480; // pixels of the longer side

let previous = Promise.resolve();

/** Draws a photo on a canvas; resolves to whether the browser can read it. */
export function drawThumbnail(file, canvas) {
    previous = previous.then(() => drawn(file, canvas)).catch(() => false);
    return previous;
}

async function drawn(file, canvas) {
    const photo = await createImageBitmap(file);
    const scale = Math.min(1, SIDE / Math.max(photo.width, photo.height));
    canvas.width = Math.max(1, Math.round(scale * photo.width));
    canvas.height = Math.max(1, Math.round(scale * photo.height));
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(photo, 0, 0, canvas.width, canvas.height);
    photo.close();
    return true;
}
