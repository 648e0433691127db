/** What ../stop.test.ts tests, with the orders in Redis. */
import { onRedis } from "./on-redis.ts";

await onRedis("../stop.test.ts");
