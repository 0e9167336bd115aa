/* A module that is unloaded while others call it; and one that does what a module must not do. Its arguments say what it is:
 *   safe    it declares that its callbacks may run on several threads
 *   filter  it sees every command
 *   api     it asks for a version of the API that there is not
 *   type    it has a data type of a name that another module has
 *   fail    it registers all that it has, and then fails */

#include <pthread.h>
#include <stddef.h>
#include <string.h>

typedef struct Ctx Ctx;
typedef struct String String;
typedef struct Key Key;
typedef struct Reply Reply;
typedef struct Filter Filter;
typedef struct FilterCtx FilterCtx;
typedef struct Type Type;
typedef int (*Command)(Ctx *ctx, String **argv, int argc);

#include "ask.h"

static int (*SetModuleAttribs)(Ctx *ctx, const char *name, int version, int api);
static int (*DeclareShardSafe)(Ctx *ctx);
static int (*CreateCommand)(Ctx *ctx, const char *name, Command command, const char *flags, int first, int last, int step);
static int (*ReplyWithLongLong)(Ctx *ctx, long long number);
static int (*WrongArity)(Ctx *ctx);
static Key *(*OpenKey)(Ctx *ctx, String *name, int mode);
static void (*CloseKey)(Key *key);
static size_t (*ValueLength)(Key *key);
static const char *(*StringPtrLen)(const String *string, size_t *len);
static String *(*CreateString)(Ctx *ctx, const char *bytes, size_t len);
static void (*FreeString)(Ctx *ctx, String *string);
static Reply *(*Call)(Ctx *ctx, const char *name, const char *format, ...);
static void (*FreeCallReply)(Reply *reply);
static int (*IsKeysPositionRequest)(Ctx *ctx);
static void (*KeyAtPos)(Ctx *ctx, int position);
static Filter *(*RegisterCommandFilter)(Ctx *ctx, void (*filter)(FilterCtx *command), int flags);
static int (*CommandFilterArgsCount)(FilterCtx *command);
static Ctx *(*GetDetachedThreadSafeContext)(Ctx *ctx);
static void (*ThreadSafeContextLock)(Ctx *ctx);
static Type *(*CreateDataType)(Ctx *ctx, const char *name, int encver, void *methods);

static long long calls;
static volatile int sink;

/* Is in this library for long enough that others may well find it here. */
__attribute__((noinline)) static void linger(void) {
    for (int at = 0; at < 20000; at++) sink = at;
}

/* Whether an argument is this word. No zero need stand behind the bytes that a module of many threads gets. */
static int is(const String *string, const char *word) {
    size_t len;
    const char *bytes = StringPtrLen(string, &len);
    return len == strlen(word) && memcmp(bytes, word, len) == 0;
}

/* GONE.LEN key: the length of its string. */
static int len(Ctx *ctx, String **argv, int argc) {
    if (argc != 2) return WrongArity(ctx);
    Key *key = OpenKey(ctx, argv[1], 1);
    linger();
    long long length = key == NULL ? 0 : (long long)ValueLength(key);
    CloseKey(key);
    return ReplyWithLongLong(ctx, length);
}

/* GONE.CALLS: how often it was called since the library is there. */
static int count(Ctx *ctx, String **argv, int argc) {
    (void)argv, (void)argc;
    return ReplyWithLongLong(ctx, ++calls);
}

/* GONE.KEYS word key: says itself where its key is. With the word "crash" that goes wrong. */
static int keys(Ctx *ctx, String **argv, int argc) {
    if (IsKeysPositionRequest(ctx)) {
        if (argc > 1 && is(argv[1], "crash")) *(volatile int *)(long)(argc - argc) = 1;
        if (argc > 2) KeyAtPos(ctx, 2);
        return 0;
    }
    return ReplyWithLongLong(ctx, argc);
}

static void *crash_alone(void *data) {
    *(volatile int *)data = 1;
    return NULL;
}

static void *crash_with_lock(void *ctx) {
    ThreadSafeContextLock(ctx);
    *(volatile int *)NULL = 1;
    return NULL;
}

/* GONE.WRONG what key: what a module must not do. */
static int wrong(Ctx *ctx, String **argv, int argc) {
    if (argc != 3) return WrongArity(ctx);
    if (is(argv[1], "crash")) *(volatile int *)(long)(argc - 3) = 1;
    if (is(argv[1], "thread")) {
        pthread_t thread;
        pthread_create(&thread, NULL, crash_alone, NULL);
        pthread_join(thread, NULL);
    }
    if (is(argv[1], "thread-with-lock")) {
        pthread_t thread;
        pthread_create(&thread, NULL, crash_with_lock, GetDetachedThreadSafeContext(ctx));
    }
    if (is(argv[1], "free-twice")) {
        String *string = CreateString(NULL, "x", 1);
        FreeString(NULL, string);
        FreeString(NULL, string);
    }
    if (is(argv[1], "free-argument")) FreeString(NULL, argv[2]);
    return ReplyWithLongLong(ctx, 0);
}

static void filter(FilterCtx *command) {
    linger();
    sink = CommandFilterArgsCount(command);
}

int RedisModule_OnUnload(Ctx *ctx) {
    if (DeclareShardSafe != NULL) FreeCallReply(Call(ctx, "INCR", "c", "unloads"));
    return 0;
}

int RedisModule_OnLoad(Ctx *ctx, String **argv, int argc) {
    int safe = 0, filters = 0, api = 1, type = 0, fail = 0;
    ASK(StringPtrLen);
    for (int at = 0; at < argc; at++) {
        safe |= is(argv[at], "safe");
        filters |= is(argv[at], "filter");
        type |= is(argv[at], "type");
        fail |= is(argv[at], "fail");
        if (is(argv[at], "api")) api = 99;
    }
    ASK(SetModuleAttribs), ASK(CreateCommand), ASK(ReplyWithLongLong), ASK(WrongArity), ASK(OpenKey), ASK(CloseKey);
    ASK(ValueLength), ASK(CreateString), ASK(FreeString), ASK(Call), ASK(FreeCallReply), ASK(IsKeysPositionRequest);
    ASK(KeyAtPos), ASK(RegisterCommandFilter), ASK(CommandFilterArgsCount), ASK(CreateDataType);
    ASK(GetDetachedThreadSafeContext), ASK(ThreadSafeContextLock);
    DeclareShardSafe = ask(ctx, "Shardis_DeclareShardSafe");
    SetModuleAttribs(ctx, "gone", 1, api);
    if (safe && (DeclareShardSafe == NULL || DeclareShardSafe(ctx) != 0)) return 1;
    if (CreateCommand(ctx, "gone.len", len, "readonly", 1, 1, 1) != 0) return 1;
    if (CreateCommand(ctx, "gone.calls", count, "readonly", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "gone.keys", keys, "readonly getkeys-api", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "gone.wrong", wrong, "readonly", 2, 2, 1) != 0) return 1;
    if (filters && RegisterCommandFilter(ctx, filter, 0) == NULL) return 1;
    if (type) {
        /* The version, and no callback at all. */
        unsigned long methods[32] = {1};
        if (CreateDataType(ctx, fail ? "gonetype1" : "sequence1", 1, methods) == NULL) return 1;
    }
    return fail;
}
