# frozen_string_literal: true

require 'fluent/plugin/bridge/consumer'
require 'fluent/plugin/bridge/unit_of_work'

module Fluent
  module Plugin
    module Bridge
      # What a thread of the input does: reads a batch, hands it to the pipeline, commits, and begins anew from the
      # committed offsets where anything of that failed.
      class ConsumeLoop
        # How much is read at once: events, bytes, and seconds to wait for more after the first message.
        Size = Struct.new(:events, :bytes, :wait)
        # Seconds to wait after a failure: the first time and at most.
        Backoff = Struct.new(:wait, :limit)

        POLL = 0.5 # seconds that it waits for a message, and so takes to see that it is to end
        KEEP_ALIVE_AFTER = 5 # seconds with a batch until the group is served beside it
        private_constant :POLL, :KEEP_ALIVE_AFTER

        # @param consumer [#call] makes a {Consumer}
        # @param delivery [Delivery::ExactlyOnce, Delivery::AtLeastOnce]
        # @param size [Size]
        # @param backoff [Backoff]
        # @param metrics [ConsumerMetrics]
        # @param log [Fluent::Log]
        # @param emit [#call] makes events of a batch and returns when they have run through the pipeline
        def initialize(consumer:, delivery:, size:, backoff:, metrics:, log:, &emit)
          @make_consumer = consumer
          @delivery = delivery
          @size = size
          @backoff = backoff
          @metrics = metrics
          @log = log
          @emit = emit
          @lock = Mutex.new # the consumer is used by one thread at a time
          @busy_since = nil
          @wait = backoff.wait
          @stopping = false
          @wake = Thread::Queue.new
        end

        # Runs until {#stop}.
        def run
          step until @stopping
        ensure
          begin
            @delivery.close
          ensure
            leave
          end
        end

        # Ends {#run} after the batch that it has.
        def stop
          @stopping = true
          @wake.close
        end

        # Keeps the member in its group while the pipeline is busy. Called about once a second, by another thread.
        def keep_alive
          return unless busy_for > KEEP_ALIVE_AFTER

          @lock.synchronize do
            next if @consumer.nil? || busy_for <= KEEP_ALIVE_AFTER

            @consumer.keep_alive
            @metrics.observe(@consumer)
          end
        rescue StandardError => e
          @log.warn('the group is not served while a batch is in the pipeline', error: e.message, error_class: e.class)
        end

        private

        def step
          batch = metadata = nil
          # Before anything is read: the offsets may be held back by a transaction that this ends.
          @delivery.ready
          # The member is asked who it is before the lock is given back: a rebalance that {#keep_alive} serves must
          # come too late for this batch.
          @lock.synchronize do
            batch = read
            metadata = @consumer.group_metadata if batch
            @metrics.observe(@consumer)
          end
          return if batch.nil?

          unit(batch, metadata)
          @wait = @backoff.wait
        rescue StandardError => e
          @metrics.aborted if batch
          recover(e, batch ? 'a batch of messages comes again' : 'no messages can be read now')
        ensure
          metadata&.free
          batch&.free
        end

        def read
          @busy_since = nil
          @consumer ||= @make_consumer.call
          @consumer.read(max_events: @size.events, max_bytes: @size.bytes, timeout: POLL, wait: @size.wait)
        ensure
          @busy_since = now
        end

        def unit(batch, metadata)
          @delivery.begin
          UnitOfWork.run(@delivery.producer) do
            @emit.call(batch)
          ensure
            @consumer.seen(batch)
          end
          @delivery.complete(@consumer, batch.offsets, metadata)
          @consumer.committed(batch.offsets)
          @metrics.committed(batch)
        end

        def recover(error, what)
          @log.warn(what, error: error.message, error_class: error.class, at: error.backtrace&.first, wait: @wait)
          @log.debug_backtrace(error.backtrace)
          @delivery.abort
          rewind
          @wake.pop(timeout: @wait)
          @wait = [@wait * 2, @backoff.limit].min
        end

        def rewind
          @lock.synchronize { @consumer&.rewind }
        rescue StandardError => e
          @log.warn('the group is joined anew', error: e.message)
          leave
        end

        def leave
          @lock.synchronize do
            @busy_since = nil
            consumer = @consumer
            @consumer = nil
            consumer&.close
          end
        end

        def busy_for
          since = @busy_since
          since ? now - since : 0
        end

        def now
          Process.clock_gettime(Process::CLOCK_MONOTONIC)
        end
      end
    end
  end
end
