/* A module whose commands take long, and let the server serve others meanwhile. */

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct Ctx Ctx;
typedef struct String String;
typedef struct Reply Reply;
typedef struct Blocked Blocked;
typedef struct Key Key;
typedef struct Type Type;
typedef struct Io Io;
typedef struct Info Info;
typedef int (*Command)(Ctx *ctx, String **argv, int argc);

static int (*SetModuleAttribs)(Ctx *ctx, const char *name, int version, int api);
static int (*CreateCommand)(Ctx *ctx, const char *name, Command command, const char *flags, int first, int last, int step);
static int (*ReplyWithLongLong)(Ctx *ctx, long long number);
static int (*ReplyWithSimpleString)(Ctx *ctx, const char *text);
static int (*ReplyWithCallReply)(Ctx *ctx, Reply *reply);
static int (*StringToLongLong)(const String *string, long long *number);
static const char *(*StringPtrLen)(const String *string, size_t *len);
static Reply *(*Call)(Ctx *ctx, const char *name, const char *format, ...);
static long long (*CallReplyInteger)(Reply *reply);
static void (*FreeCallReply)(Reply *reply);
static String *(*CreateString)(Ctx *ctx, const char *text, size_t len);
static void (*FreeString)(Ctx *ctx, String *string);
static Key *(*OpenKey)(Ctx *ctx, String *name, int mode);
static Blocked *(*BlockClient)(Ctx *ctx, Command reply, Command timeout, void (*free)(Ctx *ctx, void *data), long long ms);
static int (*UnblockClient)(Blocked *client, void *data);
static Ctx *(*GetThreadSafeContext)(Blocked *client);
static void (*FreeThreadSafeContext)(Ctx *ctx);
static void (*ThreadSafeContextLock)(Ctx *ctx);
static void (*ThreadSafeContextUnlock)(Ctx *ctx);
static unsigned long long (*MonotonicMicroseconds)(void);
static void (*Yield)(Ctx *ctx, int flags, const char *busy_reply);
static Type *(*CreateDataType)(Ctx *ctx, const char *name, int version, void *methods);
static int (*ModuleTypeSetValue)(Key *key, Type *type, void *value);
static void (*CloseKey)(Key *key);
static int (*RegisterInfoFunc)(Ctx *ctx, void (*tell)(Info *info, int for_crash));
static int (*InfoAddSection)(Info *info, const char *name);
static int (*InfoAddFieldLongLong)(Info *info, const char *name, long long value);
static void (*SaveSigned)(Io *io, long long number);
static long long (*LoadSigned)(Io *io);
static Ctx *(*GetContextFromIO)(Io *io);

typedef struct {
    unsigned long version;
    void *(*load)(Io *io, int version);
    void (*save)(Io *io, void *value);
    void (*rewrite)(Io *io, String *key, void *value);
    size_t (*usage)(const void *value);
    void (*digest)(void *digest, void *value);
    void (*free)(void *value);
} Methods;

enum { YIELD_NONE = 1, YIELD_CLIENTS = 2 };

static volatile int is_stopped, is_quiet;

static long long increment(Ctx *ctx, const char *key) {
    Reply *reply = Call(ctx, "INCR", "!c", key);
    long long number = CallReplyInteger(reply);
    FreeCallReply(reply);
    return number;
}

/* Increments a key before and after it yields, until YIELD.STOP. */
static long long hold(Ctx *ctx, const char *key) {
    is_stopped = 0;
    increment(ctx, key);
    while (!is_stopped) {
        Yield(ctx, YIELD_CLIENTS, "The module\ris at work");
        usleep(1000);
    }
    return increment(ctx, key);
}

/* YIELD.HOLD key: what the key is in the end. */
static int hold_here(Ctx *ctx, String **argv, int argc) {
    (void)argc;
    return ReplyWithLongLong(ctx, hold(ctx, StringPtrLen(argv[1], NULL)));
}

typedef struct {
    Blocked *client;
    char key[32];
} Job;

static void *work(void *data) {
    Job *job = data;
    Ctx *ctx = GetThreadSafeContext(job->client);
    ThreadSafeContextLock(ctx);
    long long number = hold(ctx, job->key);
    ThreadSafeContextUnlock(ctx);
    ReplyWithLongLong(ctx, number);
    FreeThreadSafeContext(ctx);
    UnblockClient(job->client, NULL);
    free(job);
    return NULL;
}

/* YIELD.THREAD key: as YIELD.HOLD, on a thread that has the lock. */
static int hold_on_thread(Ctx *ctx, String **argv, int argc) {
    (void)argc;
    Job *job = calloc(1, sizeof *job);
    strncpy(job->key, StringPtrLen(argv[1], NULL), sizeof job->key - 1);
    job->client = BlockClient(ctx, NULL, NULL, NULL, 0);
    pthread_t thread;
    pthread_create(&thread, NULL, work, job);
    pthread_detach(thread);
    return 0;
}

/* YIELD.QUIET ms: yields for so long, but not for commands of clients. */
static int quiet(Ctx *ctx, String **argv, int argc) {
    (void)argc;
    long long ms = 0;
    StringToLongLong(argv[1], &ms);
    unsigned long long began = MonotonicMicroseconds();
    is_quiet = 1;
    while (MonotonicMicroseconds() - began < (unsigned long long)ms * 1000) {
        Yield(ctx, YIELD_NONE, "The module is at work");
        usleep(100);
    }
    is_quiet = 0;
    return ReplyWithSimpleString(ctx, "OK");
}

/* INFO says whether YIELD.QUIET is at work. */
static void tell_info(Info *info, int for_crash) {
    (void)for_crash;
    InfoAddSection(info, "");
    InfoAddFieldLongLong(info, "quiet", is_quiet);
}

/* YIELD.CALL command [argument ...] */
static int call(Ctx *ctx, String **argv, int argc) {
    Reply *reply = Call(ctx, StringPtrLen(argv[1], NULL), "vE", argv + 2, (size_t)argc - 2);
    ReplyWithCallReply(ctx, reply);
    FreeCallReply(reply);
    return 0;
}

static Type *type;
static int loads_slowly;

static void *load(Io *io, int version) {
    (void)version;
    long long *number = malloc(sizeof *number);
    *number = LoadSigned(io);
    while (loads_slowly && !is_stopped) {
        Yield(GetContextFromIO(io), YIELD_CLIENTS, "It loads");
        usleep(1000);
    }
    return number;
}

static void save(Io *io, void *value) {
    SaveSigned(io, *(long long *)value);
}

/* YIELD.VALUE key: puts a value there that is loaded slowly. */
static int set_value(Ctx *ctx, String **argv, int argc) {
    (void)argc;
    Key *key = OpenKey(ctx, argv[1], 3);
    ModuleTypeSetValue(key, type, calloc(1, sizeof(long long)));
    CloseKey(key);
    return ReplyWithSimpleString(ctx, "OK");
}

/* YIELD.STOP: ends YIELD.HOLD, and what loads slowly. Reply: whether it can reach keys. */
static int stop(Ctx *ctx, String **argv, int argc) {
    (void)argv, (void)argc;
    is_stopped = 1;
    String *name = CreateString(NULL, "n", 1);
    int reaches = OpenKey(ctx, name, 1) != NULL || Call(ctx, "GET", "s", name) != NULL;
    FreeString(NULL, name);
    return ReplyWithLongLong(ctx, reaches);
}

#include "ask.h"

int RedisModule_OnLoad(Ctx *ctx, String **argv, int argc) {
    (void)argv;
    ASK(SetModuleAttribs), ASK(CreateCommand), ASK(ReplyWithLongLong), ASK(ReplyWithSimpleString), ASK(ReplyWithCallReply);
    ASK(StringToLongLong), ASK(StringPtrLen), ASK(Call), ASK(CallReplyInteger), ASK(FreeCallReply), ASK(CreateString);
    ASK(FreeString), ASK(OpenKey), ASK(BlockClient), ASK(UnblockClient), ASK(GetThreadSafeContext);
    ASK(FreeThreadSafeContext), ASK(ThreadSafeContextLock), ASK(ThreadSafeContextUnlock), ASK(MonotonicMicroseconds);
    ASK(Yield), ASK(CreateDataType), ASK(ModuleTypeSetValue), ASK(CloseKey), ASK(SaveSigned), ASK(LoadSigned);
    ASK(GetContextFromIO), ASK(RegisterInfoFunc), ASK(InfoAddSection), ASK(InfoAddFieldLongLong);
    SetModuleAttribs(ctx, "yields", 1, 1);
    loads_slowly = argc > 0;
    Methods methods = {.version = 1, .load = load, .save = save, .free = free};
    if ((type = CreateDataType(ctx, "yieldtype", 0, &methods)) == NULL) return 1;
    if (CreateCommand(ctx, "yield.hold", hold_here, "write", 1, 1, 1) != 0) return 1;
    if (CreateCommand(ctx, "yield.thread", hold_on_thread, "write", 1, 1, 1) != 0) return 1;
    if (CreateCommand(ctx, "yield.quiet", quiet, "readonly", 0, 0, 0) != 0) return 1;
    if (RegisterInfoFunc(ctx, tell_info) != 0) return 1;
    if (CreateCommand(ctx, "yield.value", set_value, "write", 1, 1, 1) != 0) return 1;
    if (CreateCommand(ctx, "yield.call", call, "write", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "yield.stop", stop, "allow-busy allow-loading", 0, 0, 0) != 0) return 1;
    return 0;
}
