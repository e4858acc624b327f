/** What an observer of the mesh has to say. The members in it are live views, not copies. */
import type { Member, MemberAspect } from './member.js';

export type MembershipEvent =
  | { readonly type: 'memberJoined'; readonly member: Member }
  /** Another life of a known node: what was learned about the old one (breaker, load) is void. */
  | { readonly type: 'memberRestarted'; readonly member: Member; readonly previousIncarnation: string }
  | { readonly type: 'memberChanged'; readonly member: Member; readonly aspects: readonly MemberAspect[] }
  /** Three beats missed: use it only when nothing else is there. */
  | { readonly type: 'memberSuspected'; readonly member: Member; readonly silentMs: number }
  /** Beats again. */
  | { readonly type: 'memberRecovered'; readonly member: Member; readonly from: 'suspect' | 'gone' }
  | { readonly type: 'memberGone'; readonly member: Member; readonly silentMs: number }
  /** It said goodbye. */
  | { readonly type: 'memberLeft'; readonly member: Member }
  /** Gone for a minute: no longer listed. */
  | { readonly type: 'memberForgotten'; readonly member: Member }
  /** Two processes beat under one id; the one that started later counts. Told once for each intruder. */
  | { readonly type: 'memberShadowed'; readonly member: Member; readonly otherIncarnation: string }
  | { readonly type: 'membershipFrozen'; readonly cause: FreezeCause; readonly silentCount: number; readonly memberCount: number }
  | { readonly type: 'membershipThawed'; readonly cause: FreezeCause; readonly frozenMs: number };

/** `start`: nothing has been heard yet. */
export type FreezeCause = 'start' | 'linkLost' | 'massSilence';
