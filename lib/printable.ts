/** Text of somebody else's in messages, which go to logs and terminals. */

const UNPRINTABLE = /\p{C}/gu;
const LONGEST = 200;

/** Without what would move a terminal's cursor or begin a line of its own, and not longer than a line or two. */
export function printable(text: string): string {
  return text.slice(0, LONGEST).replace(UNPRINTABLE, '\u{fffd}');
}
