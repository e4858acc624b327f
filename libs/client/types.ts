/** The contract's messages a caller meets, by the names a caller uses. */
import type { admin, generation } from '#contracts';

export type Model = generation.Model;
export type UsedParameters = generation.UsedParameters;
export type NodeInfo = admin.NodeInfo;
export type MeshSnapshot = admin.MeshSnapshot;
export type Route = admin.Route;
