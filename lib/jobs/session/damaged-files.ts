/**
 * Files of the replica, by versionKey, whose content could not be read as it was put. A server whose store has a flipped bit
 * may count such a file's chunks as before: whoever reads it is the first to know.
 */
export class DamagedFiles extends Set<string> {
  readonly #listeners = new Set<() => void>();

  override add(key: string): this {
    if (this.has(key)) return this;
    super.add(key);
    for (const listener of [...this.#listeners]) listener();
    return this;
  }

  /** Calls back for each that is found from now on; the answer takes the wish back. */
  onFound(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
