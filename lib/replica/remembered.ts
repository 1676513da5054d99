/** A set of the last so many strings: what is remembered of puts stays bounded, however long a job runs. */

const LIMIT = 4096;

export class Remembered {
  readonly #strings = new Set<string>();

  /** Forgets the oldest where there are too many. */
  add(string: string): void {
    this.#strings.delete(string);
    this.#strings.add(string);
    if (this.#strings.size <= LIMIT) return;
    for (const oldest of this.#strings) {
      this.#strings.delete(oldest);
      return;
    }
  }

  has(string: string): boolean {
    return this.#strings.has(string);
  }
}
