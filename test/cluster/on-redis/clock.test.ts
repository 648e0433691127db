/** What ../clock.test.ts tests, with the orders in Redis. */
import { onRedis } from "./on-redis.ts";

await onRedis("../clock.test.ts");
