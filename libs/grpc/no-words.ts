/**
 * What does grpc-js say on its own? Nothing: to be imported by whatever opens its doors. Its log (1.14)
 * quotes headers that it cannot take with their values, so a token with a tab in it would stand in the
 * open, and strangers, before any token is looked at, would choose how much is written and in which form.
 * Calls that fail are told of by events of ours.
 */
import { setLogger } from '@grpc/grpc-js';

setLogger({}); // also for those who set GRPC_VERBOSITY or GRPC_TRACE: traces hold all headers
