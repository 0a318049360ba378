# frozen_string_literal: true

require 'fluent/plugin/bridge/kafka_error'

module Fluent
  module Plugin
    module Bridge
      # The transactions of a {Producer}. Each call tries again what may be tried again, until its time is over.
      module Transactions
        # Seconds for which one call of librdkafka waits; it goes on where it was when called again. Short at first,
        # because an abort waits for reports that are only served between two calls.
        FIRST_STEP = 0.02
        LAST_STEP = 1.0
        # Seconds between two tries of what was refused at once.
        PAUSE = 0.05
        # Seconds in which what has been produced may still go out before an abort.
        SETTLE = 0.2
        private_constant :SETTLE, :FIRST_STEP, :LAST_STEP, :PAUSE

        # Ends what a producer with this transactional.id left open, and fences that producer.
        #
        # @param seconds [Float] for how long at most
        # @raise [KafkaError]
        def init_transactions(seconds = 30)
          @log.forget
          attempt("Kafka transactional.id #{options['transactional.id']}", seconds) do |step|
            raise @log.last_error if @log.last_error&.authentication?

            Librdkafka.rd_kafka_init_transactions(@handle, step)
          end
        end

        # Begins a transaction: what is produced from now on belongs to it.
        #
        # @raise [KafkaError]
        def begin_transaction
          @log.forget
          attempt('Kafka transaction', 0) { Librdkafka.rd_kafka_begin_transaction(@handle) }
        end

        # Makes consumed offsets part of the transaction.
        #
        # @param offsets [FFI::Pointer] a rd_kafka_topic_partition_list_t, each the offset of the next message to be read
        # @param group_metadata [FFI::Pointer] of the consumer that read them; fences one that has been replaced
        # @param seconds [Float] for how long at most
        # @raise [KafkaError]
        def send_offsets(offsets, group_metadata, seconds = delivery_timeout)
          attempt('Kafka offsets in the transaction', seconds) do |step|
            Librdkafka.rd_kafka_send_offsets_to_transaction(@handle, offsets, group_metadata, step)
          end
        end

        # Waits for everything that was produced, and commits it with the offsets.
        #
        # @param seconds [Float] for how long at most
        # @raise [DeliveryFailed, KafkaError] abort it, if `requires_abort?`
        def commit_transaction(seconds = delivery_timeout)
          deadline = now + seconds
          # librdkafka would flush as well, but not tell what failed.
          flush(seconds)
          attempt('Kafka transaction', deadline - now) { |step| Librdkafka.rd_kafka_commit_transaction(@handle, step) }
          @reports.done
        end

        # Gives up the transaction with everything that was produced into it.
        #
        # @param seconds [Float] for how long at most
        # @raise [KafkaError] close the producer then; the next one with its transactional.id ends the transaction
        def abort_transaction(seconds = 30)
          # A transaction that is aborted while its partitions are just being registered ends in INVALID_TXN_STATE, which is fatal.
          drain(now + SETTLE)
          attempt('Kafka transaction, abort', seconds) { |step| Librdkafka.rd_kafka_abort_transaction(@handle, step) }
        ensure
          @reports.clear
        end

        private

        def attempt(doing, seconds)
          deadline = [now + seconds, @give_up_at].compact.min
          step = FIRST_STEP
          loop do
            began = now
            error = KafkaError.take(yield((step * 1000).to_i), doing)
            serve
            return unless error

            @failed = true if error.fatal?
            raise error unless error.retriable?
            raise @log.last_error || error if now > deadline

            sleep PAUSE if now - began < PAUSE && step == LAST_STEP
            step = [step * 2, LAST_STEP].min
          end
        end
      end
    end
  end
end
