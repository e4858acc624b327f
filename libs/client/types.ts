/** The contract's messages a caller meets, by the names a caller uses. */
import { type admin, type generation, jobs } from '#contracts';

export type Model = generation.Model;
export type UsedParameters = generation.UsedParameters;
export type NodeInfo = admin.NodeInfo;
export type MeshSnapshot = admin.MeshSnapshot;
export type Job = jobs.Job;
export type Batch = jobs.Batch;
export const { JobState } = jobs;
export type JobState = jobs.JobState;
export type Route = admin.Route;
