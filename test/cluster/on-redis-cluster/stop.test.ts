/** What ../stop.test.ts tests, with the orders in a Redis Cluster. */
import { onRedis } from "../on-redis/on-redis.ts";

await onRedis("../stop.test.ts", "redis-cluster");
