/**
 * Files from what was dropped, pasted or chosen; folders are opened.
 *
 *     const files = await filesOf(event.dataTransfer, suffixes);
 */

/**
 * @param {DataTransfer} transfer
 * @param {string[]} suffixes of files that are taken from folders, such as ".jpg"
 * @returns {Promise<File[]>} in the order of their names; a file that was named itself is always
 *   taken, so that the server can say what is wrong with it; what may not be read is left out
 */
export async function filesOf(transfer, suffixes) {
    const items = [...transfer.items].filter((item) => item.kind === "file");
    const entries = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
    const files = await Promise.all(entries.map((entry) => opened(entry, suffixes).catch(() => [])));
    return files.flat();
}

async function opened(entry, suffixes) {
    if (!entry) return [];
    if (entry instanceof File) return [entry];
    if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
    const children = await childrenOf(entry);
    const kept = children.filter((child) => child.isDirectory || hasSuffix(child.name, suffixes));
    kept.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
    return (await Promise.all(kept.map((child) => opened(child, suffixes)))).flat();
}

/** Reads a folder to its end: a reader returns at most 100 entries at a time. */
async function childrenOf(folder) {
    const reader = folder.createReader();
    const children = [];
    for (;;) {
        const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (some.length === 0) return children;
        children.push(...some);
    }
}

export function hasSuffix(name, suffixes) {
    const lower = name.toLowerCase();
    return !lower.startsWith(".") && suffixes.some((suffix) => lower.endsWith(suffix));
}
