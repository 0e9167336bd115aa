/* A module that is told of all events of keys. It counts those of clients' keys by their names, and those of its counters, both by
 * calls that are replicated. */

#include <stdio.h>
#include <string.h>

typedef struct Ctx Ctx;
typedef struct String String;
typedef struct Reply Reply;
typedef int (*Command)(Ctx *ctx, String **argv, int argc);
typedef int (*Listener)(Ctx *ctx, int class, const char *event, String *key);

#include "ask.h"

static int (*SetModuleAttribs)(Ctx *ctx, const char *name, int version, int api);
static int (*CreateCommand)(Ctx *ctx, const char *name, Command command, const char *flags, int first, int last, int step);
static int (*ReplyWithLongLong)(Ctx *ctx, long long number);
static const char *(*StringPtrLen)(const String *string, size_t *len);
static Reply *(*Call)(Ctx *ctx, const char *name, const char *format, ...);
static void (*FreeCallReply)(Reply *reply);
static int (*Replicate)(Ctx *ctx, const char *name, const char *format, ...);
static int (*NotifyKeyspaceEvent)(Ctx *ctx, int class, const char *event, String *key);
static int (*SubscribeToKeyspaceEvents)(Ctx *ctx, int classes, Listener callback);

/* REDISMODULE_NOTIFY_GENERIC to REDISMODULE_NOTIFY_STREAM, and REDISMODULE_NOTIFY_MODULE. */
enum { CLASSES = ((1 << 11) - (1 << 2)) | 1 << 13 };

static int is_counter(String *key) {
    return strncmp(StringPtrLen(key, NULL), "count:", 6) == 0;
}

static int on_key(Ctx *ctx, int class, const char *event, String *key) {
    (void)class;
    if (is_counter(key)) return 0;
    char counter[64];
    snprintf(counter, sizeof counter, "count:%s", event);
    FreeCallReply(Call(ctx, "INCR", "c!", counter));
    return 0;
}

static int on_counter(Ctx *ctx, int class, const char *event, String *key) {
    (void)class, (void)event;
    if (is_counter(key)) FreeCallReply(Call(ctx, "INCR", "c!", "counted"));
    return 0;
}

/* set key: sets it, and has that replicated. */
static int set(Ctx *ctx, String **argv, int argc) {
    if (argc != 2) return 1;
    FreeCallReply(Call(ctx, "SET", "sc!", argv[1], "1"));
    return ReplyWithLongLong(ctx, 1);
}

/* silent key: sets it, and has nothing replicated but a command. */
static int silent(Ctx *ctx, String **argv, int argc) {
    if (argc != 2) return 1;
    FreeCallReply(Call(ctx, "SET", "sc", argv[1], "1"));
    Replicate(ctx, "SET", "sc", argv[1], "2");
    return ReplyWithLongLong(ctx, 1);
}

/* notify key: an event of the module's own, among what it replicates itself. It does not say that it writes. */
static int notify(Ctx *ctx, String **argv, int argc) {
    if (argc != 2) return 1;
    Replicate(ctx, "INCR", "c", "before");
    NotifyKeyspaceEvent(ctx, 1 << 13, "notified", argv[1]);
    Replicate(ctx, "INCR", "c", "after");
    return ReplyWithLongLong(ctx, 1);
}

/* listen: is told from now on. */
static int listen_now(Ctx *ctx, String **argv, int argc) {
    (void)argv, (void)argc;
    int status = SubscribeToKeyspaceEvents(ctx, CLASSES, on_key);
    return ReplyWithLongLong(ctx, status);
}

int RedisModule_OnLoad(Ctx *ctx, String **argv, int argc) {
    ASK(SetModuleAttribs), ASK(CreateCommand), ASK(ReplyWithLongLong), ASK(StringPtrLen), ASK(Call), ASK(FreeCallReply);
    ASK(Replicate), ASK(NotifyKeyspaceEvent), ASK(SubscribeToKeyspaceEvents);
    SetModuleAttribs(ctx, "told", 1, 1);
    (void)argv;
    /* With an argument it is told when it wants to be. */
    if (argc == 0 && SubscribeToKeyspaceEvents(ctx, CLASSES, on_key) != 0) return 1;
    if (argc == 0 && SubscribeToKeyspaceEvents(ctx, CLASSES, on_counter) != 0) return 1;
    if (CreateCommand(ctx, "told.set", set, "write", 1, 1, 1) != 0) return 1;
    if (CreateCommand(ctx, "told.silent", silent, "write", 1, 1, 1) != 0) return 1;
    if (CreateCommand(ctx, "told.notify", notify, "readonly", 1, 1, 1) != 0) return 1;
    return CreateCommand(ctx, "told.listen", listen_now, "readonly", 0, 0, 0);
}
