/** What a new mesh draws first. With this seed the circle is round. */
export const FIRST_PICTURE = { prompt: 'a big red circle on a blue background', seed: 7n } as const;
