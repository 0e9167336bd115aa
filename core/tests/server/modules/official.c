/* A module against the official header, which declares the ABI as module authors know it: a type of counters, with all callbacks of
 * a value. */

#include "redismodule.h"

#include <string.h>

typedef struct Counter {
    long long sum;
    long long adds;
} Counter;

static RedisModuleType *CounterType;

static void *counter_load(RedisModuleIO *rdb, int encver) {
    if (encver != 3) return NULL;
    Counter *counter = RedisModule_Alloc(sizeof(*counter));
    counter->sum = RedisModule_LoadSigned(rdb);
    size_t len;
    char *adds = RedisModule_LoadStringBuffer(rdb, &len);
    memcpy(&counter->adds, adds, len == sizeof(counter->adds) ? len : 0);
    RedisModule_Free(adds);
    return counter;
}

static void counter_save(RedisModuleIO *rdb, void *value) {
    Counter *counter = value;
    RedisModule_SaveSigned(rdb, counter->sum);
    RedisModule_SaveStringBuffer(rdb, (const char *)&counter->adds, sizeof(counter->adds));
}

static void counter_rewrite(RedisModuleIO *aof, RedisModuleString *key, void *value) {
    RedisModule_EmitAOF(aof, "OFFICIAL.ADD", "sl", key, ((Counter *)value)->sum);
}

static size_t counter_usage(RedisModuleKeyOptCtx *ctx, const void *value, size_t samples) {
    REDISMODULE_NOT_USED(ctx);
    REDISMODULE_NOT_USED(samples);
    return RedisModule_MallocSize((void *)value);
}

static void counter_digest(RedisModuleDigest *digest, void *value) {
    RedisModule_DigestAddLongLong(digest, ((Counter *)value)->sum);
    RedisModule_DigestEndSequence(digest);
}

static void *counter_copy(RedisModuleString *from, RedisModuleString *to, const void *value) {
    REDISMODULE_NOT_USED(from);
    REDISMODULE_NOT_USED(to);
    Counter *copy = RedisModule_Alloc(sizeof(*copy));
    memcpy(copy, value, sizeof(*copy));
    return copy;
}

/* The counter of a key, made if need be. NULL: the key is something else. */
static Counter *counter_of(RedisModuleKey *key) {
    if (RedisModule_KeyType(key) == REDISMODULE_KEYTYPE_EMPTY) {
        Counter *counter = RedisModule_Calloc(1, sizeof(*counter));
        RedisModule_ModuleTypeSetValue(key, CounterType, counter);
    }
    return RedisModule_ModuleTypeGetType(key) == CounterType ? RedisModule_ModuleTypeGetValue(key) : NULL;
}

/* OFFICIAL.ADD key number: the sum. */
static int add(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc != 3) return RedisModule_WrongArity(ctx);
    RedisModule_AutoMemory(ctx);
    long long number;
    if (RedisModule_StringToLongLong(argv[2], &number) != REDISMODULE_OK) {
        return RedisModule_ReplyWithError(ctx, "ERR it is no number");
    }
    Counter *counter = counter_of(RedisModule_OpenKey(ctx, argv[1], REDISMODULE_READ | REDISMODULE_WRITE));
    if (counter == NULL) return RedisModule_ReplyWithError(ctx, REDISMODULE_ERRORMSG_WRONGTYPE);
    counter->sum += number;
    counter->adds++;
    RedisModule_ReplicateVerbatim(ctx);
    return RedisModule_ReplyWithLongLong(ctx, counter->sum);
}

/* OFFICIAL.GET key [key ...]: of all together, the sum and how many numbers there were. */
static int get(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc < 2) return RedisModule_WrongArity(ctx);
    RedisModule_AutoMemory(ctx);
    Counter all = {0, 0};
    for (int at = 1; at < argc; at++) {
        RedisModuleKey *key = RedisModule_OpenKey(ctx, argv[at], REDISMODULE_READ);
        if (RedisModule_ModuleTypeGetType(key) != CounterType) continue;
        Counter *counter = RedisModule_ModuleTypeGetValue(key);
        all.sum += counter->sum;
        all.adds += counter->adds;
    }
    RedisModule_ReplyWithArray(ctx, 2);
    RedisModule_ReplyWithLongLong(ctx, all.sum);
    return RedisModule_ReplyWithLongLong(ctx, all.adds);
}

/* OFFICIAL.MOVE from to: puts the value itself into the other key, in place of what is there. */
static int move(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc != 3) return RedisModule_WrongArity(ctx);
    RedisModule_AutoMemory(ctx);
    RedisModuleKey *from = RedisModule_OpenKey(ctx, argv[1], REDISMODULE_READ | REDISMODULE_WRITE);
    if (RedisModule_ModuleTypeGetType(from) != CounterType) return RedisModule_ReplyWithNull(ctx);
    RedisModuleKey *to = RedisModule_OpenKey(ctx, argv[2], REDISMODULE_READ | REDISMODULE_WRITE);
    if (counter_of(to) == NULL) return RedisModule_ReplyWithError(ctx, REDISMODULE_ERRORMSG_WRONGTYPE);
    void *old;
    RedisModule_ModuleTypeReplaceValue(to, CounterType, RedisModule_ModuleTypeGetValue(from), &old);
    RedisModule_ModuleTypeReplaceValue(from, CounterType, old, NULL);
    RedisModule_DeleteKey(from);
    RedisModule_ReplicateVerbatim(ctx);
    return RedisModule_ReplyWithSimpleString(ctx, "OK");
}

int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    REDISMODULE_NOT_USED(argv);
    REDISMODULE_NOT_USED(argc);
    if (RedisModule_Init(ctx, "official", 1, REDISMODULE_APIVER_1) == REDISMODULE_ERR) return REDISMODULE_ERR;
    RedisModuleTypeMethods methods = {
        .version = REDISMODULE_TYPE_METHOD_VERSION,
        .rdb_load = counter_load,
        .rdb_save = counter_save,
        .aof_rewrite = counter_rewrite,
        .mem_usage2 = counter_usage,
        .digest = counter_digest,
        .free = RedisModule_Free,
        .copy = counter_copy,
    };
    CounterType = RedisModule_CreateDataType(ctx, "official1", 3, &methods);
    if (CounterType == NULL) return REDISMODULE_ERR;
    const char *write = "write deny-oom";
    if (RedisModule_CreateCommand(ctx, "official.add", add, write, 1, 1, 1) == REDISMODULE_ERR) return REDISMODULE_ERR;
    if (RedisModule_CreateCommand(ctx, "official.move", move, write, 1, 2, 1) == REDISMODULE_ERR) return REDISMODULE_ERR;
    return RedisModule_CreateCommand(ctx, "official.get", get, "readonly", 1, -1, 1);
}
