/** The longest time that Node's timers hold, ms (about 25 days): a longer one is over at once. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;
