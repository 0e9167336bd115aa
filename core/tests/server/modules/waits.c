/* A module that has clients wait: for threads, timers, keys, or for another command. */

#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct Ctx Ctx;
typedef struct String String;
typedef struct Reply Reply;
typedef struct Blocked Blocked;
typedef int (*Command)(Ctx *ctx, String **argv, int argc);

static int (*SetModuleAttribs)(Ctx *ctx, const char *name, int version, int api);
static int (*CreateCommand)(Ctx *ctx, const char *name, Command command, const char *flags, int first, int last, int step);
static int (*ReplyWithLongLong)(Ctx *ctx, long long number);
static int (*ReplyWithSimpleString)(Ctx *ctx, const char *text);
static int (*ReplyWithError)(Ctx *ctx, const char *text);
static int (*ReplyWithCallReply)(Ctx *ctx, Reply *reply);
static int (*StringToLongLong)(const String *string, long long *number);
static const char *(*StringPtrLen)(const String *string, size_t *len);
static Reply *(*Call)(Ctx *ctx, const char *name, const char *format, ...);
static int (*CallReplyType)(Reply *reply);
static long long (*CallReplyInteger)(Reply *reply);
static void (*FreeCallReply)(Reply *reply);
static Blocked *(*BlockClient)(Ctx *ctx, Command reply, Command timeout, void (*free)(Ctx *ctx, void *data), long long ms);
static Blocked *(*BlockClientOnKeys)(Ctx *ctx, Command reply, Command timeout, void (*free)(Ctx *ctx, void *data), long long ms, String **keys, int len, void *data);
static Blocked *(*BlockClientOnKeysWithFlags)(Ctx *ctx, Command reply, Command timeout, void (*free)(Ctx *ctx, void *data), long long ms, String **keys, int len, void *data, int flags);
static int (*UnblockClient)(Blocked *client, void *data);
static int (*AbortBlock)(Blocked *client);
static void *(*GetBlockedClientPrivateData)(Ctx *ctx);
static int (*IsBlockedReplyRequest)(Ctx *ctx);
static String *(*GetBlockedClientReadyKey)(Ctx *ctx);
static void (*SetDisconnectCallback)(Blocked *client, void (*callback)(Ctx *ctx, Blocked *client));
static Ctx *(*GetThreadSafeContext)(Blocked *client);
static void (*FreeThreadSafeContext)(Ctx *ctx);
static void (*ThreadSafeContextLock)(Ctx *ctx);
static void (*ThreadSafeContextUnlock)(Ctx *ctx);
static unsigned long long (*CreateTimer)(Ctx *ctx, long long ms, void (*callback)(Ctx *ctx, void *data), void *data);
static int (*StopTimer)(Ctx *ctx, unsigned long long id, void **data);
static int (*EventLoopAdd)(int fd, int mask, void (*callback)(int fd, void *data, int mask), void *data);
static int (*EventLoopDel)(int fd, int mask);
static int (*SubscribeToKeyspaceEvents)(Ctx *ctx, int classes, int (*callback)(Ctx *ctx, int class, const char *event, String *key));

static long long freed, disconnected, events;

typedef struct {
    Blocked *client;
    long long ms;
    char key[32];
    /* Empty, or the file whose appearance ends the work. */
    char until[256];
    long long result;
} Job;

static void free_job(Ctx *ctx, void *data) {
    (void)ctx;
    freed++;
    free(data);
}

static long long increment(Ctx *ctx, const char *key) {
    Reply *reply = Call(ctx, "INCR", "!c", key);
    long long number = CallReplyInteger(reply);
    FreeCallReply(reply);
    return number;
}

static int reply_of_job(Ctx *ctx, String **argv, int argc) {
    (void)argv, (void)argc;
    if (!IsBlockedReplyRequest(ctx)) abort();
    Job *job = GetBlockedClientPrivateData(ctx);
    return ReplyWithLongLong(ctx, job->result);
}

static int late(Ctx *ctx, String **argv, int argc) {
    (void)argv, (void)argc;
    return ReplyWithSimpleString(ctx, "LATE");
}

/* Has the lock for as long as the job says, and increments its key before and after. With a file to wait for, it makes one
 * of that name and ".begun" when it has the lock. */
static void *work(void *data) {
    Job *job = data;
    Ctx *ctx = GetThreadSafeContext(job->client);
    ThreadSafeContextLock(ctx);
    increment(ctx, job->key);
    if (job->until[0] != 0) {
        char begun[300];
        snprintf(begun, sizeof begun, "%s.begun", job->until);
        fclose(fopen(begun, "w"));
        while (access(job->until, F_OK) != 0) usleep(1000);
    }
    usleep((useconds_t)job->ms * 1000);
    job->result = increment(ctx, job->key);
    ThreadSafeContextUnlock(ctx);
    FreeThreadSafeContext(ctx);
    UnblockClient(job->client, job);
    return NULL;
}

/* WAIT.WORK key ms [file]: what the key is in the end. */
static int begin_work(Ctx *ctx, String **argv, int argc) {
    Job *job = calloc(1, sizeof *job);
    strncpy(job->key, StringPtrLen(argv[1], NULL), sizeof job->key - 1);
    StringToLongLong(argv[2], &job->ms);
    if (argc > 3) strncpy(job->until, StringPtrLen(argv[3], NULL), sizeof job->until - 1);
    job->client = BlockClient(ctx, reply_of_job, NULL, free_job, 0);
    pthread_t thread;
    pthread_create(&thread, NULL, work, job);
    pthread_detach(thread);
    return 0;
}

static Blocked *waiting;

static void gone(Ctx *ctx, Blocked *client) {
    (void)ctx;
    disconnected++;
    AbortBlock(client);
}

/* WAIT.FOR ms: until WAIT.END, or LATE after so many milliseconds. */
static int wait_for(Ctx *ctx, String **argv, int argc) {
    (void)argc;
    long long ms = 0;
    StringToLongLong(argv[1], &ms);
    waiting = BlockClient(ctx, reply_of_job, late, free_job, ms);
    SetDisconnectCallback(waiting, gone);
    return 0;
}

/* WAIT.END number: the client of WAIT.FOR gets this. */
static int end_wait(Ctx *ctx, String **argv, int argc) {
    (void)argc;
    Job *job = calloc(1, sizeof *job);
    StringToLongLong(argv[1], &job->result);
    UnblockClient(waiting, job);
    return ReplyWithSimpleString(ctx, "OK");
}

static int pop_from(Ctx *ctx, String *key) {
    Reply *reply = Call(ctx, "LPOP", "!s", key);
    int is_there = CallReplyType(reply) == 0;
    if (is_there) ReplyWithCallReply(ctx, reply);
    FreeCallReply(reply);
    return is_there ? 0 : 1;
}

/* It looks at no other key: that may be kept for a client that is before this one there. */
static int pop_reply(Ctx *ctx, String **argv, int argc) {
    (void)argv, (void)argc;
    return pop_from(ctx, GetBlockedClientReadyKey(ctx));
}

/* WAIT.POP key [key ...]: the first element of one of these lists. */
static int pop(Ctx *ctx, String **argv, int argc) {
    for (int at = 1; at < argc; at++)
        if (pop_from(ctx, argv[at]) == 0) return 0;
    BlockClientOnKeys(ctx, pop_reply, late, NULL, 0, argv + 1, argc - 1, NULL);
    return 0;
}

static int removed_reply(Ctx *ctx, String **argv, int argc) {
    (void)argv, (void)argc;
    Reply *reply = Call(ctx, "EXISTS", "s", GetBlockedClientReadyKey(ctx));
    long long is_there = CallReplyInteger(reply);
    FreeCallReply(reply);
    return is_there ? 1 : ReplyWithSimpleString(ctx, "REMOVED");
}

/* WAIT.REMOVED flags key [key ...]: until one of these is removed: REDISMODULE_BLOCK_UNBLOCK_DELETED is 1. */
static int wait_removed(Ctx *ctx, String **argv, int argc) {
    long long flags = 0;
    StringToLongLong(argv[1], &flags);
    BlockClientOnKeysWithFlags(ctx, removed_reply, late, NULL, 0, argv + 2, argc - 2, NULL, (int)flags);
    return 0;
}

static int fail_late(Ctx *ctx, String **argv, int argc) {
    (void)argv, (void)argc;
    return ReplyWithError(ctx, "LATER it has failed");
}

/* WAIT.FAIL: an error, as from a thread. WAIT.FAIL later: from the callback that replies. */
static int fail(Ctx *ctx, String **argv, int argc) {
    (void)argv;
    Blocked *client = BlockClient(ctx, argc > 1 ? fail_late : NULL, NULL, NULL, 0);
    if (argc == 1) {
        Ctx *thread = GetThreadSafeContext(client);
        ReplyWithError(thread, "THREAD it has failed");
        FreeThreadSafeContext(thread);
    }
    UnblockClient(client, NULL);
    return 0;
}

static void tick(Ctx *ctx, void *data) {
    increment(ctx, data);
    free(data);
}

/* WAIT.TIMER key ms: increments the key after so many milliseconds. */
static int timer(Ctx *ctx, String **argv, int argc) {
    (void)argc;
    long long ms = 0;
    StringToLongLong(argv[2], &ms);
    unsigned long long stopped = CreateTimer(ctx, ms, tick, NULL);
    if (StopTimer(ctx, stopped, NULL) != 0 || StopTimer(ctx, stopped, NULL) != 1) abort();
    CreateTimer(ctx, ms, tick, strdup(StringPtrLen(argv[1], NULL)));
    return ReplyWithSimpleString(ctx, "OK");
}

static void readable(int fd, void *data, int mask) {
    char byte;
    if (mask != 1 || data != &events || read(fd, &byte, 1) != 1) abort();
    EventLoopDel(fd, 1);
    close(fd);
    events += 1000;
}

/* WAIT.PIPE: writes to a pipe that the server watches. */
static int watch_pipe(Ctx *ctx, String **argv, int argc) {
    (void)argv, (void)argc;
    int ends[2];
    if (pipe(ends) != 0 || EventLoopAdd(ends[0], 1, readable, &events) != 0) abort();
    if (write(ends[1], "x", 1) != 1) abort();
    close(ends[1]);
    return ReplyWithSimpleString(ctx, "OK");
}

static int noted(Ctx *ctx, int class, const char *event, String *key) {
    (void)class;
    events++;
    /* Of what it does itself it is not told. */
    if (strcmp(event, "set") == 0) Call(ctx, "SADD", "!cs", "noted", key);
    return 0;
}

/* WAIT.COUNT what */
static int count(Ctx *ctx, String **argv, int argc) {
    (void)argc;
    const char *what = StringPtrLen(argv[1], NULL);
    return ReplyWithLongLong(ctx, what[0] == 'f' ? freed : what[0] == 'd' ? disconnected : events);
}

#include "ask.h"

int RedisModule_OnLoad(Ctx *ctx, String **argv, int argc) {
    (void)argv;
    ASK(SetModuleAttribs), ASK(CreateCommand), ASK(ReplyWithLongLong), ASK(ReplyWithSimpleString);
    ASK(ReplyWithError), ASK(ReplyWithCallReply), ASK(StringToLongLong), ASK(StringPtrLen), ASK(Call), ASK(CallReplyType);
    ASK(CallReplyInteger), ASK(FreeCallReply), ASK(BlockClient), ASK(BlockClientOnKeys), ASK(UnblockClient);
    ASK(BlockClientOnKeysWithFlags);
    ASK(AbortBlock), ASK(GetBlockedClientPrivateData), ASK(IsBlockedReplyRequest), ASK(SetDisconnectCallback);
    ASK(GetBlockedClientReadyKey);
    ASK(GetThreadSafeContext), ASK(FreeThreadSafeContext), ASK(ThreadSafeContextLock), ASK(ThreadSafeContextUnlock);
    ASK(CreateTimer), ASK(StopTimer), ASK(EventLoopAdd), ASK(EventLoopDel), ASK(SubscribeToKeyspaceEvents);
    SetModuleAttribs(ctx, "waits", 1, 1);
    /* With an argument it is told of strings and lists: REDISMODULE_NOTIFY_STRING | REDISMODULE_NOTIFY_LIST. */
    if (argc > 0 && SubscribeToKeyspaceEvents(ctx, 1 << 3 | 1 << 4, noted) != 0) return 1;
    if (CreateCommand(ctx, "wait.work", begin_work, "write", 1, 1, 1) != 0) return 1;
    if (CreateCommand(ctx, "wait.for", wait_for, "readonly", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "wait.end", end_wait, "readonly", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "wait.pop", pop, "write", 1, -1, 1) != 0) return 1;
    if (CreateCommand(ctx, "wait.removed", wait_removed, "readonly", 2, -1, 1) != 0) return 1;
    if (CreateCommand(ctx, "wait.fail", fail, "readonly", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "wait.timer", timer, "write", 1, 1, 1) != 0) return 1;
    if (CreateCommand(ctx, "wait.pipe", watch_pipe, "readonly", 0, 0, 0) != 0) return 1;
    if (CreateCommand(ctx, "wait.count", count, "readonly", 0, 0, 0) != 0) return 1;
    return 0;
}
