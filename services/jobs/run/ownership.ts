/**
 * Whose job is it? Each job belongs to one of the replicas that live: the one whose score for it is the highest
 * (rendezvous hashing, Thaler and Ravishankar 1998). Every replica comes to the same answer by itself, and when one
 * comes or goes only the jobs change hands that it has or had.
 *
 * The hash spreads; nobody gains by choosing ids that meet. Replicas that disagree for a moment about who lives draw
 * a picture twice at worst: the record's compare and set keeps one.
 */

/** FNV-1a over UTF-16 units, 32 bits. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  return hash >>> 0;
}

/** A replica with what is computed once, for any number of jobs. */
export interface Candidate {
  readonly id: string;
  readonly hash: number;
}

export function candidate(id: string): Candidate {
  return { id, hash: hashOf(id) };
}

/** Undefined when nobody lives. `key`: the key of the job's record. */
export function ownerOf(key: string, candidates: readonly Candidate[]): string | undefined {
  const hash = hashOf(key);
  let owner: string | undefined;
  let highest = -1;
  for (const { id, hash: idHash } of candidates) {
    const score = mixed(hash ^ idHash);
    if (score < highest || (score === highest && owner !== undefined && owner < id)) continue;
    owner = id;
    highest = score;
  }
  return owner;
}

/** The last steps of MurmurHash3: every bit of the input moves every bit of the score. */
function mixed(value: number): number {
  let bits = value;
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}
