/** What ../store-away.test.ts tests, with the orders in Redis. */
import { onRedis } from "./on-redis.ts";

await onRedis("../store-away.test.ts");
