/**
 * Series for Prometheus over a registry of our own, so that two services in one process (a test's
 * mesh) never share counters. The one place that knows prom-client.
 *
 * Names start with dmesh_ and end in their unit (_seconds, _bytes, _ratio; counters in _total).
 * Label values come from small closed sets: methods, codes, states; never ids of requests.
 */
import { collectDefaultMetrics, Counter as PromCounter, Gauge as PromGauge, Histogram as PromHistogram, Registry } from 'prom-client';

export type Labels<Name extends string> = Readonly<Record<Name, string>>;
/** No argument when a series has no labels. */
type LabelArgs<Name extends string> = [Name] extends [never] ? [] : [labels: Labels<Name>];

/** One series of many under one name; children are kept, so that a hot path looks one up in a map. */
interface Family<Name extends string, Child> {
  with(...labels: LabelArgs<Name>): Child;
  /** Forgets one series, such as a node that is gone. */
  remove(...labels: LabelArgs<Name>): void;
}

export interface CounterChild {
  add(count?: number): void;
}
export interface GaugeChild {
  set(value: number): void;
  add(delta: number): void;
}
export interface HistogramChild {
  observe(value: number): void;
}

export type Counter<Name extends string = never> = Family<Name, CounterChild>;
export interface Gauge<Name extends string = never> extends Family<Name, GaugeChild> {
  /** Forgets every series; a `collect` that reports a changing set begins with it. */
  clear(): void;
}
export type Histogram<Name extends string = never> = Family<Name, HistogramChild>;

interface SeriesOptions<Name extends string> {
  readonly name: `dmesh_${string}`;
  readonly help: string;
  readonly labels?: readonly Name[];
}
export interface CounterOptions<Name extends string> extends SeriesOptions<Name> {
  readonly name: `dmesh_${string}_total`;
}
export interface GaugeOptions<Name extends string> extends SeriesOptions<Name> {
  /** Called at every scrape, for values that are cheaper to read than to keep. */
  readonly collect?: (gauge: Gauge<Name>) => void;
}
export interface HistogramOptions<Name extends string> extends SeriesOptions<Name> {
  /** Upper bounds, rising, in the unit the name ends in. */
  readonly buckets: readonly number[];
}

export interface Metrics {
  counter<const Name extends string = never>(options: CounterOptions<Name>): Counter<Name>;
  gauge<const Name extends string = never>(options: GaugeOptions<Name>): Gauge<Name>;
  histogram<const Name extends string = never>(options: HistogramOptions<Name>): Histogram<Name>;
  /** The text exposition format, and the content type that goes with it. */
  render(): Promise<string>;
  readonly contentType: string;
}

/** From 1 ms (a router's own work) to 5 minutes (a large picture that waited). */
export const DURATION_BUCKETS_SECONDS: readonly number[] = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300,
];

/** `defaultMetrics` adds the process_* and nodejs_* series every Node dashboard knows. */
export function createMetrics(options: { service: string; defaultMetrics?: boolean }): Metrics {
  const registry = new Registry();
  registry.setDefaultLabels({ service: options.service });
  if (options.defaultMetrics ?? false) collectDefaultMetrics({ register: registry });
  return {
    counter(o) {
      const prom = new PromCounter({ ...base(o), registers: [registry] });
      return family(o, prom, (labels) => {
        const child = prom.labels(labels);
        return { add: (count = 1) => child.inc(count) };
      });
    },
    gauge<Name extends string>(o: GaugeOptions<Name>) {
      const prom: PromGauge = new PromGauge({
        ...base(o),
        registers: [registry],
        ...(o.collect ? { collect: () => o.collect?.(gauge) } : {}),
      });
      const children = family(o, prom, (labels): GaugeChild => {
        const child = prom.labels(labels);
        return { set: (value) => child.set(value), add: (delta) => child.inc(delta) };
      });
      const gauge: Gauge<Name> = { ...children, clear: () => prom.reset() };
      return gauge;
    },
    histogram(o) {
      const prom = new PromHistogram({ ...base(o), buckets: [...o.buckets], registers: [registry] });
      return family(o, prom, (labels) => {
        const child = prom.labels(labels);
        return { observe: (value) => child.observe(value) };
      });
    },
    render: () => registry.metrics(),
    contentType: registry.contentType,
  };
}

function base(options: SeriesOptions<string>): { name: string; help: string; labelNames: string[] } {
  return { name: options.name, help: options.help, labelNames: [...(options.labels ?? [])] };
}

function family<Name extends string, Child>(
  options: SeriesOptions<Name>,
  prom: { remove(labels: Record<string, string>): void },
  make: (labels: Record<string, string>) => Child,
): Family<Name, Child> {
  const names = options.labels ?? [];
  const children = new Map<string, Child>();
  // NUL cannot be part of a label value that came from text, so two label sets never share a key.
  const keyOf = (labels: Labels<Name> | undefined) => (labels ? names.map((name) => labels[name]).join('\0') : '');
  return {
    with(labels?: Labels<Name>) {
      const key = keyOf(labels);
      let child = children.get(key);
      if (child === undefined) {
        child = make({ ...labels });
        children.set(key, child);
      }
      return child;
    },
    remove(labels?: Labels<Name>) {
      children.delete(keyOf(labels));
      prom.remove({ ...labels });
    },
  };
}
