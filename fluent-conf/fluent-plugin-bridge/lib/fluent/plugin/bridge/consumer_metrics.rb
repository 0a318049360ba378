# frozen_string_literal: true

module Fluent
  module Plugin
    module Bridge
      # Lag, rebalances and units of work of one thread, for fluent-plugin-prometheus, which shows whatever is in
      # prometheus-client's registry. Without that gem nothing is counted.
      class ConsumerMetrics
        LAG_EVERY = 2 # seconds
        private_constant :LAG_EVERY

        # @param group [String] the consumer group
        # @param worker [Integer] Fluentd's worker
        def initialize(group:, worker:)
          require 'prometheus/client'
          registry = ::Prometheus::Client.registry
          labels = { group: group, worker: worker.to_s }
          @lag = metric(registry, :gauge, :fluent_bridge_kafka_lag, 'Messages not committed, by partition.', labels, %i[topic partition])
          @events = metric(registry, :counter, :fluent_bridge_kafka_consumed_events_total, 'Messages read and committed.', labels)
          @units = metric(registry, :counter, :fluent_bridge_kafka_units_total, 'Batches, by outcome.', labels, %i[outcome])
          @rebalances = metric(registry, :counter, :fluent_bridge_kafka_rebalances_total, 'Rebalances, by effect.', labels, %i[event])
          @partitions = metric(registry, :gauge, :fluent_bridge_kafka_assigned_partitions, 'Partitions that this worker has.', labels)
          @next = 0
        rescue LoadError
          @units = nil
        end

        # @param batch [Batch] whose offsets were committed
        def committed(batch)
          return if @units.nil?

          @events.increment(by: batch.events)
          @units.increment(labels: { outcome: 'committed' })
        end

        # @param consumer [Consumer] whose lag is taken, once in a while
        def observe(consumer)
          now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
          return if @units.nil? || now < @next

          @next = now + LAG_EVERY
          consumer.lag.each { |(topic, partition), lag| @lag.set(lag, labels: { topic: topic, partition: partition }) }
        end

        # A batch that comes again.
        def aborted
          @units&.increment(labels: { outcome: 'aborted' })
        end

        # @param event [Symbol] :assigned, :revoked or :lost
        # @param partitions [Array<Array(String, Integer)>]
        def rebalanced(event, partitions)
          return if @units.nil?

          @rebalances.increment(labels: { event: event })
          if event == :assigned
            @partitions.increment(by: partitions.size)
          else
            @partitions.decrement(by: partitions.size)
            # Somebody else's now; a registry has no way to forget a series.
            partitions.each { |topic, partition| @lag.set(0, labels: { topic: topic, partition: partition }) }
          end
        end

        private

        # Several inputs, and the threads of each, share a metric.
        def metric(registry, kind, name, meaning, preset, labels = [])
          known = registry.get(name) ||
                  registry.public_send(kind, name, docstring: meaning, labels: preset.keys + labels)
          known.with_labels(preset)
        end
      end
    end
  end
end
