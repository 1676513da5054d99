/** The keys about merged levels, snapshots and retention: at the top of a configuration, and `snapshot` of a database. */

import type { UpkeepSettings } from '../lib/jobs/tidy/tidy.js';
import type { ConfigMap } from './config-map.js';

const MOST_LEVELS = 8;

/** Those at the top, which hold for all databases. What is left out stays left out. */
export function readLevels(map: ConfigMap): UpkeepSettings {
  const level0RetentionMs = map.duration('l0-retention');
  const levelIntervalsMs = readIntervals(map);
  const retention = map.map('retention');
  const enabled = retention?.flag('enabled');
  retention?.end();
  return {
    ...(levelIntervalsMs !== undefined && { levelIntervalsMs }),
    ...(level0RetentionMs !== undefined && { level0RetentionMs }),
    ...(enabled !== undefined && { retention: enabled }),
    ...readSnapshot(map),
  };
}

/** `snapshot: {interval, retention}`. */
export function readSnapshot(map: ConfigMap): UpkeepSettings {
  const section = map.map('snapshot');
  const snapshotIntervalMs = section?.duration('interval');
  const snapshotRetentionMs = section?.duration('retention');
  section?.end();
  return {
    ...(snapshotIntervalMs !== undefined && { snapshotIntervalMs }),
    ...(snapshotRetentionMs !== undefined && { snapshotRetentionMs }),
  };
}

function readIntervals(map: ConfigMap): number[] | undefined {
  const levels = map.maps('levels');
  if (levels === undefined) return undefined;
  const intervals: number[] = [];
  for (const level of levels) {
    const intervalMs = level.duration('interval') ?? level.refuseAll('expected an interval', ['interval']);
    if (intervalMs <= (intervals.at(-1) ?? 0)) {
      level.refuse('interval', 'expected longer intervals from level to level');
    }
    intervals.push(intervalMs);
    level.end();
  }
  if (intervals.length === 0 || intervals.length > MOST_LEVELS) {
    map.refuse('levels', `expected 1 to ${MOST_LEVELS} levels, found ${intervals.length}`);
  }
  return intervals;
}
