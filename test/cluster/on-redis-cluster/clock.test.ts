/** What ../clock.test.ts tests, with the orders in a Redis Cluster. */
import { onRedis } from "../on-redis/on-redis.ts";

await onRedis("../clock.test.ts", "redis-cluster");
